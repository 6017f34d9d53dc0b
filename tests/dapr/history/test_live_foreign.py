"""Histories of workflows other than the agent's, from the real runtime, on a sidecar without the agent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.dapr.history.causes import Cause, cause, cause_of, timed_out_attempts
from app.dapr.history.model import AttemptOutcome, RunStatus, WaitOutcome
from app.dapr.history.times import TimePart, split
from app.domain.errors import HistoryTampered, TaskNotFound
from tests.dapr.history import foreign_worker as flows
from tests.dapr.history.foreign import Foreign, foreign
from tests.live import until

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """One sidecar and worker for all tests here; each has its own instances."""
    with foreign(tmp_path_factory.mktemp("foreign")) as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def everything(other: Foreign) -> str:
    """The id of an ended run that did everything."""
    other.start(flows.everything, "everything", {"n": 1})
    other.ended("everything")
    return "everything"


def test_steps_retries_timers_and_children(other: Foreign, everything: str) -> None:
    run = other.reader.read(everything)
    assert (run.status, run.name, run.app_id) == (RunStatus.COMPLETED, "everything", "agent")
    assert run.input is not None
    assert run.input.json() == {"n": 1}
    assert [(step.name, [attempt.outcome for attempt in step.attempts]) for step in run.steps] == [
        ("echo", ["completed"]),
        ("shaky", ["failed", "failed", "completed"]),
        ("echo", ["completed"]),
        ("echo", ["completed"]),
        ("echo", ["completed"]),
    ]
    assert [(child.name, [attempt.outcome for attempt in child.attempts]) for child in run.children] == [
        ("child", ["completed"]),
        ("failing", ["failed", "failed", "failed"]),
    ]
    shaky, again = run.steps[1], run.children[1]
    assert Counter(pause.of for pause in run.pauses) == {shaky.execution_id: 2, again.instance_id: 2}
    assert all(pause.ended_at and pause.ended_at >= pause.due_at for pause in run.pauses)
    assert len(run.timers) == 1
    assert [step.name for step, _ in timed_out_attempts(run)] == ["shaky", "shaky"]
    assert run.turns == sum(event.HasField("workflowStarted") for event in other.reader.events(everything))
    assert len(run.signers) == 1, "all was done behind one sidecar"


def test_its_time_is_accounted_for(other: Foreign, everything: str) -> None:
    run = other.reader.read(everything)
    assert run.started_at is not None
    assert run.ended_at is not None
    time = split(run, until=run.ended_at)
    assert time.total == run.ended_at - run.started_at
    assert time.parts[TimePart.BACK_OFF] > flows.QUICK, "four pauses, each a little shorter than asked for"
    assert time.parts[TimePart.TIMER] > timedelta(0)
    assert time.parts[TimePart.CHILDREN] > timedelta(0)
    assert time.parts[TimePart.SUSPENDED] == time.parts[TimePart.WAITING] == timedelta(0)


def test_a_child_names_its_parent_and_a_retried_one_keeps_its_last_attempt_alone(
    other: Foreign, everything: str
) -> None:
    good, bad = other.reader.read(everything).children
    child = other.reader.read(good.instance_id)
    assert child.parent is not None
    assert (child.parent.instance_id, child.parent.event_id) == (everything, good.last.event_id)
    last = other.reader.read(bad.instance_id)
    assert last.parent is not None
    assert last.parent.event_id == bad.last.event_id
    assert (last.status, [len(step.attempts) for step in last.steps]) == (RunStatus.FAILED, [2])


def test_a_failure_is_kept_without_its_stack_trace(other: Foreign) -> None:
    other.start(flows.failing, "fails")
    run = other.ended("fails")
    assert run.status is RunStatus.FAILED
    assert run.failure is not None
    assert "order" in run.failure.message
    assert [cause_of(attempt) for attempt in run.steps[0].attempts] == [Cause.BUG, Cause.BUG]
    assert "Traceback" not in repr(run)
    assert "foreign.py" not in repr(run)


def test_a_workflow_that_no_worker_knows_is_a_bug(other: Foreign) -> None:
    other.client.schedule_new_workflow("nobody_registered_this", instance_id="unknown")
    run = other.ended("unknown")
    assert run.failure is not None
    assert cause(run.failure) is Cause.BUG


def test_events_that_answer_come_too_early_or_never(other: Foreign) -> None:
    other.start(flows.waiting, "waits")
    other.client.raise_workflow_event("waits", "THIRD", data={"n": 3})
    before = other.read_when("waits", lambda run: run.raised, "the early event has arrived")
    assert [(wait.name, wait.outcome, wait.due_at) for wait in before.waits] == [("First", WaitOutcome.OPEN, None)]
    assert [(event.name, event.wait) for event in before.raised] == [("THIRD", None)]

    other.client.raise_workflow_event("waits", "first", data={"n": 1})
    run = other.ended("waits")
    first, second = run.waits
    assert (first.outcome, first.answer and first.answer.json()) == (WaitOutcome.ANSWERED, {"n": 1})
    assert (second.name, second.outcome) == ("second", WaitOutcome.TIMED_OUT)
    assert second.ended_at
    assert second.due_at
    assert second.ended_at >= second.due_at
    assert [(event.name, event.wait) for event in run.raised] == [("THIRD", None), ("first", first.event_id)]
    assert run.output is not None
    assert run.output.json() == [{"n": 1}, {"n": 3}], "the early event was kept, and found without a wait"


def test_a_pause_and_its_end(other: Foreign) -> None:
    other.start(flows.waiting, "paused")
    other.client.pause_workflow("paused")
    other.read_when("paused", lambda run: run.status is RunStatus.SUSPENDED, "it is paused")
    until(lambda: other.reader.status("paused").status is RunStatus.SUSPENDED, "and says so")
    other.client.raise_workflow_event("paused", "first", data=1)
    run = other.read_when("paused", lambda run: run.raised, "the event has arrived")
    assert run.status is RunStatus.SUSPENDED
    assert run.waits[0].outcome is WaitOutcome.ANSWERED, "the answer is there; the code sees it later"
    other.client.resume_workflow("paused")
    other.client.raise_workflow_event("paused", "third", data=1)
    run = other.ended("paused")
    (pause,) = run.suspensions
    assert pause.ended_at is not None
    assert pause.started_at < pause.ended_at
    assert run.ended_at is not None
    assert split(run, run.ended_at).parts[TimePart.SUSPENDED] > timedelta(0)


def test_a_terminated_run_loses_its_unfinished_steps(other: Foreign, tmp_path: Path) -> None:
    other.start(flows.patient, "ends", str(tmp_path))
    until((tmp_path / "held").exists, "the step is under way")
    assert other.reader.read("ends").steps[0].last.outcome is AttemptOutcome.OPEN
    other.client.terminate_workflow("ends", output={"reason": "test"})
    run = other.ended("ends")
    assert (run.status, run.output and run.output.json()) == (RunStatus.TERMINATED, {"reason": "test"})
    assert (run.steps[0].last.outcome, run.steps[0].last.ended_at) == (AttemptOutcome.LOST, None)
    events = len(other.reader.events("ends"))
    (tmp_path / "may_go_on").touch()
    until((tmp_path / "gone_on").exists, "the step has ended")
    other.start(flows.child, "after")
    other.ended("after")
    assert len(other.reader.events("ends")) == events, "what comes too late is not written down"


def test_continue_as_new_shows_the_last_generation_with_the_events_it_took_along(other: Foreign) -> None:
    other.start(flows.counting, "counts", 0)
    first = other.reader.read("counts")
    for number in (1, 2, 3):
        other.client.raise_workflow_event("counts", "item", data=number)
    other.client.raise_workflow_event("counts", "go", data=1)
    run = other.read_when(
        "counts", lambda run: any(wait.name == "stop" for wait in run.waits), "the last generation waits for its end"
    )
    assert (first.continued, run.continued) == (False, True)
    assert run.execution_id != first.execution_id
    assert run.input is not None
    assert run.input.json() == 3
    assert run.started_at is not None
    assert first.started_at is not None
    assert run.started_at > first.started_at
    assert [(event.name, event.payload and event.payload.json()) for event in run.raised] == [("item", 3)]
    assert run.raised[0].at >= run.started_at, "Dapr keeps no time for an event that is taken along"
    other.client.raise_workflow_event("counts", "stop", data=1)
    assert other.ended("counts").turns < 4


def test_a_rerun_tells_what_it_inherits(other: Foreign, everything: str) -> None:
    source = other.reader.read(everything)
    last = source.steps[-1]
    other.rerun(everything, last.last.event_id, "again")
    run = other.ended("again")
    assert (run.instance_id, run.rerun_of) == ("again", everything)
    own = [attempt.event_id for step in run.steps for attempt in step.attempts if not attempt.inherited]
    assert last.last.event_id in own
    assert run.attempts == len(own) < source.attempts
    assert run.started_at is not None
    assert source.ended_at is not None
    assert run.started_at > source.ended_at, "it begins at its fork, although its history begins with the other run's"
    assert run.ended_at is not None
    assert split(run, run.ended_at).total == run.ended_at - run.started_at


def test_a_rerun_does_not_wait_again_for_what_was_answered(other: Foreign) -> None:
    other.start(flows.waiting, "asked")
    other.client.raise_workflow_event("asked", "first", data=1)
    other.client.raise_workflow_event("asked", "third", data=3)
    source = other.ended("asked")
    other.rerun("asked", source.steps[0].last.event_id, "asked-again")
    run = other.ended("asked-again")
    assert [(wait.name, wait.outcome) for wait in run.waits] == [(wait.name, wait.outcome) for wait in source.waits]
    assert all(wait.ended_at == wait.started_at for wait in run.waits[:2]), "that was waited for in the other run"
    assert run.output == source.output
    assert run.ended_at is not None
    assert split(run, run.ended_at).parts[TimePart.WAITING] == timedelta(0)


def test_a_run_that_is_to_start_later_is_pending(other: Foreign, everything: str) -> None:
    run = other.reader.read(everything)
    assert run.ended_at is not None
    other.client.schedule_new_workflow(flows.child, instance_id="later", start_at=run.ended_at + timedelta(hours=9))
    assert other.reader.status("later").status is RunStatus.PENDING
    assert other.reader.read("later").status is RunStatus.PENDING


def test_pages_hold_every_instance_once(other: Foreign, everything: str) -> None:
    for number in range(5):
        other.start(flows.child, f"page-{number}", number)
        other.ended(f"page-{number}")
    token, pages = None, 0
    seen: set[str] = set()
    while True:
        page = other.reader.page(token, size=2)
        seen |= set(page.instance_ids)
        token, pages = page.next_token, pages + 1
        if token is None:
            break
    assert pages > len(seen) // 2 >= 3
    assert {everything, *(f"page-{number}" for number in range(5))} <= seen
    for size in (1, 3, 500):
        ids = list(other.reader.instance_ids(page_size=size))
        assert set(ids) == seen
        assert len(ids) == len(seen)


def test_an_instance_that_moves_on_between_two_pages_is_not_missed(other: Foreign) -> None:
    other.start(flows.waiting, "moves")
    ids = other.reader.instance_ids(page_size=1)
    seen = [next(ids)]
    other.client.raise_workflow_event("moves", "first", data=1)
    other.client.raise_workflow_event("moves", "third", data=1)
    other.ended("moves")
    seen += ids
    assert seen.count("moves") == 1
    assert len(seen) == len(set(seen))


def test_an_instance_that_was_never_started_is_not_found(other: Foreign) -> None:
    with pytest.raises(TaskNotFound):
        other.reader.read("nobody")
    with pytest.raises(TaskNotFound):
        other.reader.status("nobody")


def test_a_changed_byte_is_found_and_named(other: Foreign) -> None:
    for name in ("changed", "untouched"):
        other.start(flows.child, name, {"tokens": 812})
        other.ended(name)
    other.change_an_event("changed", b'{"echo": {"tokens": 812}}', b'{"echo": {"tokens": 112}}')
    with pytest.raises(HistoryTampered) as caught:
        other.reader.read("changed")
    assert caught.value.instance_id == "changed"
    assert "signature verification failed for 'changed'" in caught.value.words
    assert other.reader.read("untouched").status is RunStatus.COMPLETED
    assert "changed" in set(other.reader.instance_ids())


def test_a_changed_byte_in_a_run_that_goes_on_ends_it(other: Foreign) -> None:
    other.start(flows.waiting, "forged", {"tokens": 812})
    other.change_an_event("forged", b'{"tokens": 812}', b'{"tokens": 112}')
    for ask in (other.reader.read, other.reader.status):
        with pytest.raises(HistoryTampered):
            ask("forged")
    other.stack.kill("daprd")  # the sidecar forgets what it holds in memory, and reads the history again
    other.stack.start("daprd")
    other.raise_event("forged", "first", "1")
    until(lambda: other.reader.status("forged").status is RunStatus.FAILED, "Dapr ends the run")
    with pytest.raises(HistoryTampered, match="signature verification failed"):
        other.reader.read("forged")
