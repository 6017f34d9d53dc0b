"""What failures cost: each figure compared with one computed by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from app.dapr.history.causes import Cause
from app.domain.models import AnsweredBy
from app.finance.failures.failure_figures import SpendRole
from app.finance.failures.intervals import Interval, share_of_sum
from app.ledger.store.task_record import FailureKind
from app.pricing.charge_types import CostKind
from tests.finance.failures.figures import cents, part, spent, tokens, value
from tests.finance.failures.tasks import crashed, failed, failure, fleet, step, task
from tests.records import attempt_record


def test_a_crash_in_the_draft_repeats_its_call_and_would_have_repeated_the_first_stage() -> None:
    scope = part(*fleet(crashed(3), of=4))
    assert (scope.tasks, scope.failures, scope.crashes.failed, scope.crashes.restarts) == (4, 1, 1, 1)
    assert (spent(scope.clean), spent(scope.wasted)) == (cents("0.016"), cents("0.003"))
    assert scope.crashes.rate is not None
    assert scope.crashes.rate.value == Decimal("0.25")
    assert scope.crashes.progress is not None
    assert scope.crashes.progress.mean == Decimal("0.25")  # 1,000 of 4,000 tokens
    replay = scope.crashes.prevented[SpendRole.REPLAY]
    assert (spent(replay), int(tokens(replay))) == (cents("0.001"), 1_000)
    assert spent(replay, CostKind.COMPUTE) == cents("0.00004")  # two steps, a second each
    assert spent(replay, CostKind.ORCHESTRATION) == cents("0.000005")  # four writes
    assert [value(share) for share in scope.durable] == [("USD", cents("0.003"), Decimal("0.1875"))]
    assert [value(share) for share in scope.crashes.repeated] == [("USD", cents("0.004"), Decimal("0.25"))]
    (bound,) = scope.crashes.bounds
    assert (bound.at_most, bound.by_progress) == (cents("0.004"), cents("0.001"))
    assert scope.every == scope.crashes


def test_an_answer_in_the_journal_is_not_asked_again() -> None:
    scope = part(*fleet(crashed(3, answered=True), of=4))
    journal = scope.crashes.prevented[SpendRole.JOURNAL]
    assert (spent(journal), int(tokens(journal))) == (cents("0.003"), 3_000)
    assert spent(journal, CostKind.COMPUTE) == 0  # the step was not over
    assert spent(scope.crashes.prevented[SpendRole.REPLAY]) == cents("0.001")
    assert spent(scope.wasted) == 0
    assert [value(share) for share in scope.crashes.repeated] == [("USD", cents("0.004"), Decimal("0.25"))]
    assert scope.crashes.progress is not None
    assert scope.crashes.progress.mean == 1


def test_a_call_after_the_last_heartbeat_of_its_worker_counts_as_before_the_failure() -> None:
    answered = crashed(3, answered=True)
    early = replace(answered, failures=(failure(3, 0.5, 4),))  # the call was begun after one second
    assert spent(part(early).crashes.prevented[SpendRole.JOURNAL]) == cents("0.003")
    never = replace(answered, failures=(failure(3, 0.5),))
    assert spent(part(never).crashes.prevented[SpendRole.JOURNAL]) == 0


def test_a_call_that_completed_its_own_step_was_under_way() -> None:
    steps = tuple(step(number) for number in (1, 2, 3))
    error: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.TOOL_ERROR}
    # A lookup fails while the step of the draft, which has made its call, is still running.
    slow = (*steps[:2], step(3, attempts=(attempt_record(20, 30),)))
    beside = task(steps=slow, failures=(failure(2, 25, 26, **error),))
    every = part(beside).every
    assert {role: tokens(group) for role, group in every.prevented.items()} == {
        SpendRole.REPLAY: 1_000,
        SpendRole.JOURNAL: 0,
        SpendRole.UNDER_WAY: 3_000,
    }
    assert every.progress is not None
    assert every.progress.mean == 1


def test_retries_without_progress_are_one_restart_and_none_at_crashes() -> None:
    scope = part(*fleet(failed(2, times=3), of=2))
    assert (scope.failures, scope.every.failed, scope.every.restarts) == (3, 1, 1)
    assert spent(scope.every.prevented[SpendRole.REPLAY]) == cents("0.001")
    assert (scope.crashes.failed, scope.crashes.restarts, scope.crashes.progress) == (0, 0, None)
    assert [value(share) for share in scope.crashes.repeated] == [("USD", Decimal(0), Decimal(0))]
    assert [(cause.kind, cause.cause, cause.failures, cause.tasks) for cause in scope.causes] == [
        ("failed", "tool_error", 3, 1)
    ]


def test_retries_with_progress_in_between_are_a_restart_each() -> None:
    error: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.TOOL_ERROR}
    failures = (failure(3, 0.5, 1, **error), failure(3, 4, 5, attempt=2, **error))
    answered = (step(1), step(2), step(3, answered_by=AnsweredBy.JOURNAL))
    every = part(task(steps=answered, failures=failures)).every  # the call was begun after 1 second, in between
    assert every.restarts == 2
    assert spent(every.prevented[SpendRole.REPLAY]) == cents("0.002")
    assert spent(every.prevented[SpendRole.JOURNAL]) == cents("0.003")


def test_a_step_that_kills_its_worker_repeatedly_is_a_restart_each_time() -> None:
    failures = (failure(3, 0.25, 0.5), failure(3, 0.75, 0.9, execution=2), failure(3, 0.95, 1, execution=3))
    crashes = part(task(failures=failures)).crashes
    assert (crashes.failed, crashes.restarts) == (1, 3)
    assert spent(crashes.prevented[SpendRole.REPLAY]) == cents("0.003")


def test_parallel_steps_that_one_crash_hit_are_one_restart() -> None:
    both = (failure(2, 12, 15), failure(3, 3, 5))  # lost 22 and 23 seconds after the start, resumed after 25
    assert part(task(failures=both)).crashes.restarts == 1
    apart = (failure(2, 12, 12.5), failure(3, 3, 5))
    assert part(task(failures=apart)).crashes.restarts == 2


def test_a_failure_without_further_work_is_no_restart() -> None:
    error: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.BUG}
    scope = part(*fleet(task(failures=(failure(3, 9, **error),)), of=2))
    assert (scope.every.failed, scope.every.restarts, scope.every.progress) == (1, 0, None)
    assert all(tokens(group) == 0 for group in scope.every.prevented.values())
    went_on = part(task(failures=(failure(2, 9, **error),)))  # the draft was begun one second later
    assert went_on.every.restarts == 1


def test_nothing_spent_has_no_share_and_nothing_ended_no_rate() -> None:
    tools = part(task(calls=(), failures=(failure(2, 3, 4),)))
    assert (tools.durable, tools.crashes.repeated, tools.crashes.bounds) == ((), (), ())
    assert (tools.crashes.restarts, tools.crashes.unknown) == (1, 1)
    nothing = part()
    assert (nothing.tasks, nothing.crashes.rate, nothing.crashes.progress) == (0, None, None)


def test_a_running_task_is_not_included() -> None:
    running = replace(crashed(3), ended_at=None)
    assert part(running, task("acme:T-2")) == part(task("acme:T-2"))


def test_lost_compute_is_separate_from_lost_calls() -> None:
    steps = (step(1), step(2), step(3, lost=timedelta(seconds=2)))
    scope = part(task(steps=steps, failures=(failure(3, 3, 4),)))
    assert spent(scope.wasted, CostKind.COMPUTE) == cents("0.00004")
    assert spent(scope.wasted) == 0


def test_intervals_are_those_of_what_each_task_lost() -> None:
    """One task would repeat 1,000 tokens; another 1,000, and 3,000 were wasted."""
    scope = part(*fleet(crashed(1, answered=True), crashed(3, "acme:T-2"), of=10))
    assert scope.durable[0].share == share_of_sum(Decimal("0.075"), [3], 10)
    assert scope.crashes.repeated[0].share == share_of_sum(Decimal("0.125"), [1, 4], 10)


def test_the_bound_takes_the_mean_of_the_progress() -> None:
    three = [crashed(3, "acme:T-1"), crashed(3, "acme:T-2"), crashed(3, "acme:T-3", answered=True)]
    runner = part(*fleet(*three, of=6)).crashes
    assert runner.progress is not None
    assert (runner.progress.mean, runner.progress.median) == (Decimal("0.5"), Decimal("0.25"))
    assert (runner.bounds[0].at_most, runner.bounds[0].by_progress) == (cents("0.012"), cents("0.006"))


def test_the_most_frequent_cause_is_the_first() -> None:
    records = (failed(2, 3, "acme:T-1"), crashed(3, "acme:T-2"), failed(2, 1, "acme:T-3"))
    assert [(cause.cause, cause.failures, cause.tasks) for cause in part(*records).causes] == [
        ("tool_error", 4, 2),
        ("worker_gone", 1, 1),
    ]


def test_an_interval_surrounds_its_figure_and_narrows_with_more_failures() -> None:
    def width(tasks: int) -> Decimal:
        records = [crashed(3, f"acme:C-{number}") for number in range(tasks)]
        every = part(*fleet(*records, of=4 * tasks)).every
        for figure in (every.rate, every.repeated[0].share):
            assert isinstance(figure, Interval)
            assert figure.low < figure.value == Decimal("0.25") < figure.high
        assert every.repeated[0].share is not None
        return every.repeated[0].share.high - every.repeated[0].share.low

    assert width(5) > width(20) > width(80) > 0


def test_prevented_and_measured_costs_sum_to_the_repeated_cost() -> None:
    records = fleet(crashed(3), crashed(1, "acme:T-2", answered=True), failed(2, 2, "acme:T-3"), of=9)
    scope = part(*records)
    for runner in (scope.crashes, scope.every):
        parts_of_it = [spent(scope.wasted), *(spent(group) for group in runner.prevented.values())]
        assert sum(parts_of_it) == runner.repeated[0].contracted_cost
    assert (
        scope.every.repeated[0].contracted_cost
        > scope.crashes.repeated[0].contracted_cost
        > scope.durable[0].contracted_cost
        > 0
    )
