"""The run that is parsed from histories made by hand, for each kind of event."""

from __future__ import annotations

import hashlib

import pytest
from dapr.ext.workflow._durabletask.internal import protos
from hypothesis import given
from hypothesis import strategies as st

from app.dapr.history.model import AttemptOutcome, Failure, Parent, Payload, Replay, RunStatus, Suspension, WorkflowRun
from app.dapr.history.parse import parse
from tests.dapr.history.told import Told, at, details


def run(history: Told) -> WorkflowRun:
    """Parses a history."""
    return parse("i", history.events)


def history() -> Told:
    """A history of a run that was requested at 0 s and whose first turn is at 1 s."""
    return Told().turn(1).started(0, text='{"n": 1}')


def test_no_event_is_a_run_that_is_pending() -> None:
    parsed = parse("i", ())
    assert parsed.status is RunStatus.PENDING
    assert (parsed.started_at, parsed.ended_at, parsed.events, parsed.size, parsed.turns) == (None, None, 0, 0, 0)


def test_start_and_end() -> None:
    events = history().turn(5).ended(6, text='"done"')
    parsed = run(events)
    assert (parsed.instance_id, parsed.name, parsed.app_id, parsed.execution_id) == ("i", "w", "agent", "generation")
    assert (parsed.started_at, parsed.ended_at) == (at(0), at(6))
    assert parsed.status is RunStatus.COMPLETED
    assert parsed.input == Payload('{"n": 1}')
    assert parsed.output == Payload('"done"')
    assert parsed.events == 4
    assert parsed.size == sum(len(event.SerializeToString()) for event in events.events)
    assert parsed.replays == (Replay(at(1), at(1)), Replay(at(5), at(6)))


@pytest.mark.parametrize(
    ("number", "status"),
    [(1, "completed"), (2, "continued_as_new"), (3, "failed"), (4, "canceled"), (5, "terminated")],
)
def test_how_a_run_ended(number: int, status: str) -> None:
    assert run(history().turn(5).ended(6, status=number)).status == status


def test_a_failed_run_says_why_without_its_stack_trace() -> None:
    outer = details("TaskFailedError", "i: Activity task #1 failed: no")
    outer.innerFailure.CopyFrom(details("ValueError", "no"))
    parsed = run(history().turn(5).ended(6, status=3, failureDetails=outer))
    inner = Failure("ValueError", "no")
    assert parsed.failure == Failure("TaskFailedError", "i: Activity task #1 failed: no", inner)
    assert parsed.failure.root == inner
    assert "line 1" not in repr(parsed)


def test_a_child_names_its_parent_and_a_version_its_patches() -> None:
    parent = protos.ParentInstanceInfo(
        taskScheduledId=7, appID="shop", workflowInstance=protos.WorkflowInstance(instanceId="p")
    )
    parent.name.value = "parent"
    parsed = run(Told().turn(1, name="v2", patches=["a"]).started(0, parentInstance=parent).turn(2, patches=["a", "b"]))
    assert parsed.parent == Parent("p", "parent", "shop", 7)
    assert parsed.version == "v2"
    assert parsed.patches == ("a", "b")
    assert run(Told().turn(1).started(0, version="v1")).version == "v1"


def test_a_start_in_the_future_begins_then() -> None:
    later = protos.ExecutionStartedEvent()
    later.scheduledStartTimestamp.FromDatetime(at(100))
    stamp = later.scheduledStartTimestamp
    assert run(Told().turn(101).started(0, scheduledStartTimestamp=stamp)).started_at == at(100)


def test_a_step_and_its_attempts() -> None:
    events = history().scheduled(2, 1, "draft", "k1", text='{"turn": 1}')
    events.turn(4).failed(3, 1, "ModelUnavailable", "status 500").pauses(4, 2, due=9, key="k1")
    events.turn(9).fired(9, 2).scheduled(10, 3, "draft", "k1", text='{"turn": 1}')
    events.turn(12).completed(11, 3, '{"use": {"model": "m"}}', signer=b"\x0a\x0b")
    (step,) = run(events).steps
    first, second = step.attempts
    assert (step.execution_id, step.name, step.input) == ("k1", "draft", Payload('{"turn": 1}'))
    assert (first.number, first.event_id, first.scheduled_at, first.ended_at) == (1, 1, at(2), at(3))
    assert first.outcome is AttemptOutcome.FAILED
    assert first.failure == Failure("ModelUnavailable", "status 500")
    assert (second.number, second.event_id, second.outcome) == (2, 3, AttemptOutcome.COMPLETED)
    assert second.result is not None
    assert second.result.at("use", "model") == "m"
    assert (first.signer, second.signer) == (None, "0a0b")
    assert step.last is second


def test_a_pause_is_not_a_timer_of_the_code() -> None:
    events = history().scheduled(2, 1).turn(4).failed(3, 1).pauses(4, 2, due=9)
    events.timer(4, 3, 20, createTimer=protos.TimerOriginCreateTimer()).turn(9.5).fired(9.2, 2).scheduled(10, 4)
    parsed = run(events)
    (pause,) = parsed.pauses
    assert (pause.of, pause.started_at, pause.due_at, pause.ended_at, pause.child) == (
        "k",
        at(4),
        at(9),
        at(9.2),
        False,
    )
    (timer,) = parsed.timers
    assert (timer.event_id, timer.started_at, timer.due_at, timer.ended_at) == (3, at(4), at(20), None)
    assert parsed.waits == ()


def test_steps_side_by_side_keep_their_own_attempts() -> None:
    events = history().scheduled(2, 1, "a", "k1").scheduled(2, 2, "a", "k2")
    events.turn(4).failed(3, 2).completed(3.5, 1).pauses(4, 3, 5, "k2").turn(5).fired(5, 3).scheduled(5, 4, "a", "k2")
    one, two = run(events).steps
    assert [attempt.outcome for attempt in one.attempts] == ["completed"]
    assert [attempt.outcome for attempt in two.attempts] == ["failed", "open"]


def test_unfinished_work_of_an_ended_run_is_lost() -> None:
    events = (
        history()
        .scheduled(2, 1)
        .child(2, 2)
        .waits(2, 3, "decision")
        .turn(5)
        .add(4, executionTerminated=protos.ExecutionTerminatedEvent(recurse=True))
    )
    before = run(events)
    assert (before.steps[0].last.outcome, before.children[0].last.outcome) == (AttemptOutcome.OPEN, AttemptOutcome.OPEN)
    assert before.waits[0].outcome == "open"
    parsed = run(events.ended(5, status=5, text='{"reason": "x"}'))
    assert (parsed.steps[0].last.outcome, parsed.children[0].last.outcome) == (AttemptOutcome.LOST, AttemptOutcome.LOST)
    assert parsed.waits[0].outcome == "abandoned"
    assert parsed.status is RunStatus.TERMINATED


def test_a_retried_child_is_one_child() -> None:
    retry = protos.TimerOriginChildWorkflowRetry(instanceId="i:0001")
    events = history().child(2, 1).turn(4).child_failed(3, 1).timer(4, 2, 5, childWorkflowRetry=retry)
    events.turn(5).fired(5, 2).child(5, 3).turn(7).child_completed(6, 3, '"ok"')
    parsed = run(events)
    (child,) = parsed.children
    assert (child.instance_id, child.name) == ("i:0001", "c")
    assert [attempt.outcome for attempt in child.attempts] == ["failed", "completed"]
    assert child.last.result == Payload('"ok"')
    assert [(pause.of, pause.child) for pause in parsed.pauses] == [("i:0001", True)]


def test_a_detached_child_is_not_waited_for() -> None:
    body = protos.DetachedWorkflowInstanceCreatedEvent(instanceId="other")
    (child,) = run(history().add(2, 1, detachedWorkflowInstanceCreated=body)).children
    assert (child.instance_id, child.detached, child.last.outcome) == ("other", True, AttemptOutcome.OPEN)


def test_a_step_in_another_app_says_so() -> None:
    near, far = run(history().scheduled(2, 1, key="k1", app="agent").scheduled(2, 2, key="k2", app="books")).steps
    assert (near.app_id, far.app_id) == (None, "books")


def test_suspensions() -> None:
    events = history().turn(3).suspended(2, "lunch")
    assert run(events).status is RunStatus.SUSPENDED
    events.turn(4).suspended(3.5).turn(6).resumed(5).turn(8).resumed(7)
    parsed = run(events)
    assert parsed.suspensions == (Suspension(at(2), at(5), "lunch"),)
    assert parsed.status is RunStatus.RUNNING


def test_stalls() -> None:
    events = history().stalled(3, 2, "too big")
    assert run(events).status is RunStatus.STALLED
    parsed = run(events.turn(9).resumed(8))
    (stall,) = parsed.stalls
    assert (stall.at, stall.reason, stall.description, stall.ended_at) == (
        at(3),
        "PAYLOAD_SIZE_EXCEEDED",
        "too big",
        at(9),
    )
    assert parsed.status is RunStatus.RUNNING


def test_a_run_that_stalls_before_it_starts() -> None:
    parsed = run(Told().stalled(3, 1, "no v2"))
    assert (parsed.status, parsed.started_at, parsed.name) == (RunStatus.STALLED, None, "")


def test_a_continued_generation_is_distinguished_from_a_first_one() -> None:
    first = run(history().scheduled(2, 1))
    later = run(Told().turn(10, app="agent").started(10.001).raised(None, "go", "7").waits(11, 1, "next"))
    routed = run(Told().turn(1, app="agent").started(0))
    assert (first.continued, routed.continued, later.continued) == (False, False, True)
    (event,) = later.raised
    assert (event.at, event.wait) == (at(10.001), None), "an event carried over has no time of its own"


def test_a_schedule_that_is_written_again_is_one_attempt() -> None:
    events = history().turn(3).raised(2, "go").suspended(2.5).scheduled(3, 1).waits(3, 2, "x")
    events.turn(5).raised(4, "noise").scheduled(5, 1).waits(5, 2, "x")
    events.turn(8).completed(7, 1).scheduled(8, 1).waits(8, 2, "x")
    parsed = run(events)
    assert [(attempt.number, attempt.scheduled_at, attempt.outcome) for attempt in parsed.steps[0].attempts] == [
        (1, at(3), "completed")
    ]
    assert len(parsed.waits) == 1
    assert parsed.repeats == 4
    assert parsed.events == len(events.events)


def test_a_rerun_marks_what_it_inherits() -> None:
    events = history().scheduled(2, 1, "a", "k1").turn(4).completed(3, 1).scheduled(4, 2, "b", "k2")
    events.scheduled(1000, 3, "c", "k3")  # unfinished in the other run, so Dapr schedules it again too
    events.events[-2], events.events[-1] = events.events[-1], events.events[-2]
    events.events[-1].timestamp.FromDatetime(at(1000))
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    events.turn(1002).completed(1001, 2).ended(1002)
    parsed = run(events)
    assert parsed.rerun_of == "first"
    assert {step.name: step.last.inherited for step in parsed.steps} == {"a": True, "c": False, "b": False}
    assert parsed.attempts == 2
    assert (parsed.started_at, parsed.ended_at) == (at(1000), at(1002))
    assert parsed.replays == (Replay(at(1002), at(1002)),)


def test_a_rerun_of_a_rerun_starts_at_its_own_event() -> None:
    events = history().scheduled(2, 1, "a", "k1")
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    events.turn(4).completed(3, 1).scheduled(50, 2, "b", "k2")
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "second"
    parsed = run(events)
    assert parsed.rerun_of == "second"
    assert [step.last.inherited for step in parsed.steps] == [True, False]


def history_without_execution_ids(**origin: object) -> Told:
    """Two concurrent steps of one name without execution ids; both fail and are retried after a timer."""
    events = history().scheduled(2, 1, "a", "", "1").scheduled(2, 2, "a", "", "2").scheduled(2, 3, "b", "", "1")
    events.turn(4).failed(3, 1).failed(3, 2).completed(3, 3).timer(4, 4, 5, **origin).timer(4, 5, 6, **origin)
    events.turn(5).fired(5, 4).fired(5, 5).scheduled(5, 6, "a", "", "2").scheduled(5, 7, "a", "", "1")
    return events.turn(9).completed(8, 6).completed(8, 7)


@pytest.mark.parametrize("origin", [{}, {"activityRetry": protos.TimerOriginActivityRetry()}])
def test_retries_without_execution_ids_are_found_by_what_they_leave(origin: dict[str, object]) -> None:
    parsed = run(history_without_execution_ids(**origin))
    assert {step.execution_id: [attempt.event_id for attempt in step.attempts] for step in parsed.steps} == {
        "#1": [1, 7],
        "#2": [2, 6],
        "#3": [3],
    }
    assert sorted(pause.of for pause in parsed.pauses) == ["#1", "#2"]
    assert parsed.timers == ()


def test_equal_unnamed_steps_are_each_retried_once() -> None:
    """They fail in one turn, then each in another turn, and the later one is retried first."""
    events = history().scheduled(2, 1, "a", "").scheduled(2, 2, "a", "")
    events.turn(4).failed(3, 1).failed(3, 2).timer(4, 3, 5).timer(4, 4, 5)
    events.turn(5).fired(5, 3).fired(5, 4).scheduled(5, 5, "a", "").scheduled(5, 6, "a", "")
    events.turn(7).failed(6, 5).timer(7, 7, 20).turn(9).failed(8, 6).timer(9, 8, 10)
    events.turn(10).fired(10, 8).scheduled(10, 9, "a", "").turn(20).fired(20, 7).scheduled(20, 10, "a", "")
    parsed = run(events)
    steps = {step.execution_id: [attempt.event_id for attempt in step.attempts] for step in parsed.steps}
    assert steps == {"#1": [1, 5, 10], "#2": [2, 6, 9]}
    assert [(pause.event_id, pause.of) for pause in parsed.pauses] == [(3, "#1"), (4, "#2"), (7, "#1"), (8, "#2")]


def test_a_loop_of_the_code_without_execution_ids_is_no_retry() -> None:
    own_timer = protos.TimerOriginCreateTimer()
    events = history().scheduled(2, 1, "a", "").turn(4).failed(3, 1).timer(4, 2, 5, createTimer=own_timer)
    parsed = run(events.turn(5).fired(5, 2).scheduled(5, 3, "a", ""))
    assert [step.execution_id for step in parsed.steps] == ["#1", "#3"]
    assert len(parsed.timers) == 1


def test_other_kinds_of_events_are_only_counted() -> None:
    events = history().add(2, 1, eventSent=protos.EventSentEvent(instanceId="o", name="n"))
    events.add(3, continueAsNew=protos.ContinueAsNewEvent()).add(3, workflowCompleted=protos.WorkflowCompletedEvent())
    events.add(3).completed(4, 77).fired(4, 78).child_completed(4, 79)
    parsed = run(events)
    assert parsed.events == len(events.events)
    assert (parsed.steps, parsed.children, parsed.timers, parsed.status) == ((), (), (), RunStatus.RUNNING)


def test_signers_in_the_order_of_their_work() -> None:
    events = history().scheduled(2, 1, key="k1").scheduled(2, 2, key="k2").scheduled(2, 3, key="k3")
    events.turn(5).completed(4, 3, signer=b"\x02").completed(3, 1, signer=b"\x01").completed(3, 2, signer=b"\x01")
    assert run(events).signers == ("01", "02")


def test_signers_of_a_step_that_was_retried_while_others_worked() -> None:
    events = history().scheduled(2, 1, key="k1").scheduled(2, 2, key="k2")
    events.turn(4).failed(3, 1).completed(3, 2, signer=b"\x02").pauses(4, 3, 5, "k1").turn(5).fired(5, 3)
    events.scheduled(5, 4, key="k1").turn(7).completed(6, 4, signer=b"\x01")
    assert run(events).signers == ("02", "01")


def test_the_first_end_counts() -> None:
    (step,) = run(history().scheduled(2, 1).turn(4).completed(3, 1).turn(6).failed(5, 1)).steps
    assert (step.last.outcome, step.last.ended_at) == (AttemptOutcome.COMPLETED, at(3))


def test_clocks_that_differ_make_no_negative_time() -> None:
    parsed = run(history().scheduled(0.5, 1).stalled(4).turn(3))
    assert parsed.replays[0] == Replay(at(1), at(1))
    assert parsed.stalls[0].ended_at == at(4)


def test_a_payload_is_text_first() -> None:
    assert Payload("é").size == 2
    assert Payload("é").digest == hashlib.sha256("é".encode()).hexdigest()
    assert Payload("not json").json() is None
    assert Payload('{"a": [1]}').at("a", "b") is None
    assert Payload('{"a": {"b": null}}').at("a", "b") is None


KINDS = st.sampled_from(["turn", "scheduled", "completed", "failed", "timer", "fired", "raised", "waits", "stop", "go"])


@given(st.lists(st.tuples(KINDS, st.integers(1, 6), st.integers(0, 50)), max_size=40))
def test_any_mixture_is_read_and_nothing_is_lost_or_invented(mixture: list[tuple[str, int, int]]) -> None:
    events = Told()
    for kind, number, seconds in mixture:
        match kind:
            case "turn" | "suspended" | "resumed":
                getattr(events, kind)(seconds)
            case "scheduled":
                events.scheduled(seconds, number, key=f"k{number % 2}")
            case "timer":
                events.timer(seconds, number)
            case "waits":
                events.waits(seconds, number, "e", due=None)
            case "raised":
                events.raised(seconds, "E")
            case "stop":
                events.suspended(seconds)
            case "go":
                events.resumed(seconds)
            case _:
                getattr(events, kind)(seconds, number)
    parsed = run(events)
    schedules = [event for event in events.events if event.HasField("taskScheduled") or event.HasField("timerCreated")]
    kept = parsed.attempts + len(parsed.timers) + len(parsed.waits) + len(parsed.pauses)
    assert kept + parsed.repeats == len(schedules)
    assert len(parsed.raised) == sum(event.HasField("eventRaised") for event in events.events)
    answered = [event.wait for event in parsed.raised if event.wait is not None]
    assert sorted(answered) == sorted(wait.event_id for wait in parsed.waits if wait.outcome == "answered")
    assert all(wait.ended_at is None or wait.ended_at >= wait.started_at for wait in parsed.waits)
