"""Outcomes of executions from the execution log: which one brought the result, which were lost, when, and why."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.dapr.history.causes import Cause
from app.dapr.history.executions import GONE_AFTER, Execution, ExecutionOutcome, StartedExecution, executions, idle
from app.dapr.history.model import Attempt, AttemptOutcome, Failure, RunStatus, Step, WorkflowRun
from app.dapr.history.times import TimePart, shares, split
from tests.dapr.history.told import at


def attempt(
    ended: float | None = 10, outcome: AttemptOutcome = AttemptOutcome.COMPLETED, failure: Failure | None = None
) -> Attempt:
    """An attempt that was scheduled at 1."""
    return Attempt(1, 5, at(1), None if ended is None else at(ended), outcome, failure)


def started(
    number: int, start: float, worker: str = "w1", seen: float | None = None, **changes: float
) -> StartedExecution:
    """A row of the execution log; `seen`, and in `changes` `lost` and `stopped`, in seconds."""
    times = {f"{name}_at": at(seconds) for name, seconds in changes.items()}
    return StartedExecution("k", 5, number, worker, at(start), seen_at=None if seen is None else at(seen), **times)


def summary(ordered: tuple[Execution, ...]) -> list[tuple[str, datetime | None, Cause | None]]:
    return [(execution.outcome.value, execution.ended_at, execution.cause) for execution in ordered]


def test_a_single_execution_has_the_outcome_of_its_attempt() -> None:
    assert summary(executions(attempt(), [started(1, 1.1)], at(20))) == [("completed", at(10), None)]
    failed = attempt(outcome=AttemptOutcome.FAILED, failure=Failure("ModelUnavailable", "status 429"))
    assert summary(executions(failed, [started(1, 1.1)], at(20))) == [("failed", at(10), Cause.RATE_LIMIT)]


def test_an_execution_of_a_dead_worker_was_lost_at_its_last_heartbeat() -> None:
    ordered = executions(attempt(), [started(2, 8, "w2", seen=20), started(1, 2, "w1", seen=4)], at(20))
    assert summary(ordered) == [("interrupted", at(4), Cause.WORKER_GONE), ("completed", at(10), None)]
    assert list(idle(ordered)) == [(at(4), at(8))]


def test_a_worker_last_seen_before_the_start_was_lost_at_the_start() -> None:
    (lost, _) = executions(attempt(), [started(1, 2, "w1", seen=1.5), started(2, 8, "w2")], at(20))
    assert lost.ended_at == at(2)


def test_an_unknown_worker_was_lost_at_the_latest_when_the_next_execution_started() -> None:
    (lost, _) = executions(attempt(), [started(1, 2, "w1"), started(2, 8, "w2")], at(20))
    assert (lost.ended_at, lost.cause) == (at(8), Cause.WORKER_GONE)


def test_a_worker_that_lost_its_sidecar_says_when() -> None:
    ordered = executions(attempt(), [started(1, 2, "w1", seen=20, lost=3), started(2, 8, "w1", seen=20)], at(20))
    assert summary(ordered)[0] == ("interrupted", at(3), Cause.SIDECAR_GONE)


def test_if_the_worker_lives_the_sidecar_was_lost() -> None:
    again = executions(attempt(), [started(1, 2, "w1", seen=20), started(2, 8, "w1", seen=20)], at(20))
    living = executions(attempt(), [started(1, 2, "w1", seen=20), started(2, 8, "w2", seen=20)], at(20))
    assert [pair[0].cause for pair in (again, living)] == [Cause.SIDECAR_GONE] * 2
    assert list(idle(again)) == [(at(8), at(8))], "the time of the loss is not known"


def test_a_worker_that_was_stopped_left_its_work_to_another() -> None:
    ordered = executions(attempt(), [started(1, 2, "w1", seen=6, stopped=6), started(2, 8, "w2")], at(20))
    assert summary(ordered)[0] == ("interrupted", at(6), Cause.WORKER_STOPPED)


def test_what_happens_to_a_worker_after_the_work_was_taken_over_changes_nothing() -> None:
    rows = [started(1, 2, "w1", seen=4), started(2, 8, "w2", seen=9)]
    later = [started(1, 2, "w1", seen=4), started(2, 8, "w2", seen=50, stopped=50)]
    assert executions(attempt(), rows, at(20)) == executions(attempt(), later, at(60))


def test_an_execution_that_started_after_the_end_is_repeated() -> None:
    ordered = executions(attempt(), [started(1, 2), started(2, 12)], at(20))
    assert summary(ordered) == [("completed", at(10), None), ("repeated", None, None)]


def test_a_clock_that_is_ahead_makes_no_repetition() -> None:
    assert summary(executions(attempt(), [started(1, 10.5)], at(20))) == [("completed", at(10), None)]


def test_an_attempt_without_an_end_is_open_until_its_worker_is_gone() -> None:
    open_ = attempt(None, AttemptOutcome.OPEN)
    now = at(10) + GONE_AFTER
    assert summary(executions(open_, [started(1, 2, seen=11)], now)) == [("open", None, None)]
    (gone,) = executions(open_, [started(1, 2, seen=10)], now)
    assert (gone.outcome, gone.ended_at, gone.cause) == (ExecutionOutcome.INTERRUPTED, at(10), Cause.WORKER_GONE)
    (stopped,) = executions(open_, [started(1, 2, seen=9, stopped=9)], at(9.5))
    assert (stopped.ended_at, stopped.cause) == (at(9), Cause.WORKER_STOPPED)


def test_idle_time_does_not_count_as_work() -> None:
    ordered = executions(attempt(), [started(1, 2, "w1", seen=4), started(2, 8, "w2")], at(20))
    run = WorkflowRun("i", "w", RunStatus.COMPLETED, at(0), at(12), steps=(Step("k", "a", (attempt(),)),))
    gaps = {5: tuple(idle(ordered))}
    parts = split(run, at(20), gaps).parts
    assert {part: length.total_seconds() for part, length in parts.items() if length} == {
        TimePart.ACTIVE: 5,
        TimePart.RESTART: 4,
        TimePart.IDLE: 3,
    }
    assert {key: share.total_seconds() for key, share in shares(run, at(20), gaps).items()} == {
        ("k", True): 3,
        ("k", False): 2,
    }


@st.composite
def rows(draw: st.DrawFn) -> list[StartedExecution]:
    """Executions of an attempt in order, with random knowledge of their workers."""
    starts = sorted(draw(st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True)))
    signs = st.none() | st.integers(0, 90).map(at)
    return [
        StartedExecution(
            "k", 5, number, draw(st.sampled_from(["w1", "w2", "w3"])), at(start), draw(signs), draw(signs), draw(signs)
        )
        for number, start in enumerate(starts, 1)
    ]


@given(rows(), st.none() | st.integers(1, 60))
def test_a_loss_is_between_the_start_and_the_next_start(written: list[StartedExecution], ended: int | None) -> None:
    end = attempt(ended, AttemptOutcome.OPEN if ended is None else AttemptOutcome.COMPLETED)
    ordered = executions(end, written, at(100))
    assert [execution.number for execution in ordered] == [execution.number for execution in written]
    for execution, following in itertools.pairwise(ordered):
        if execution.outcome is ExecutionOutcome.INTERRUPTED:
            assert execution.ended_at is not None
            assert execution.started_at <= execution.ended_at <= following.started_at
    outcomes = [execution.outcome for execution in ordered]
    assert outcomes.count(ExecutionOutcome.COMPLETED) == (ended is not None)
    assert (ExecutionOutcome.REPEATED in outcomes) == (
        ended is not None and any(execution.started_at > at(ended) for execution in written[1:])
    )


@given(rows(), st.integers(1, 60))
def test_every_second_of_a_run_is_in_one_part(written: list[StartedExecution], ended: int) -> None:
    step = Step("k", "a", (attempt(ended),))
    run = WorkflowRun("i", "w", RunStatus.COMPLETED, at(0), at(61), steps=(step,))
    gaps = {5: tuple(idle(executions(step.last, written, at(61))))}
    ordered = split(run, at(61), gaps)
    assert ordered.total == timedelta(seconds=61)
    assert sum(shares(run, at(61), gaps).values(), timedelta(0)) == ordered.active
