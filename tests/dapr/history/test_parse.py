"""Each kind of event, told by hand, and what the run then says."""

from __future__ import annotations

import hashlib

import pytest
from dapr.ext.workflow._durabletask.internal import protos
from hypothesis import given
from hypothesis import strategies as st

from app.dapr.history.model import AttemptOutcome, Failure, Parent, Payload, Replay, RunStatus, Suspension, WorkflowRun
from app.dapr.history.parse import parse
from tests.dapr.history.told import Told, at, details


def run(told: Told) -> WorkflowRun:
    """The run that a told history tells of."""
    return parse("i", told.events)


def told() -> Told:
    """A run that was asked for at 0 s and whose code was first run at 1 s."""
    return Told().turn(1).started(0, text='{"n": 1}')


def test_no_event_is_a_run_that_is_pending() -> None:
    found = parse("i", ())
    assert found.status is RunStatus.PENDING
    assert (found.started_at, found.ended_at, found.events, found.size, found.turns) == (None, None, 0, 0, 0)


def test_start_and_end() -> None:
    events = told().turn(5).ended(6, text='"done"')
    found = run(events)
    assert (found.instance_id, found.name, found.app_id, found.execution_id) == ("i", "w", "agent", "generation")
    assert (found.started_at, found.ended_at) == (at(0), at(6))
    assert found.status is RunStatus.COMPLETED
    assert found.input == Payload('{"n": 1}')
    assert found.output == Payload('"done"')
    assert found.events == 4
    assert found.size == sum(len(event.SerializeToString()) for event in events.events)
    assert found.replays == (Replay(at(1), at(1)), Replay(at(5), at(6)))


@pytest.mark.parametrize(
    ("number", "status"),
    [(1, "completed"), (2, "continued_as_new"), (3, "failed"), (4, "canceled"), (5, "terminated")],
)
def test_how_a_run_ended(number: int, status: str) -> None:
    assert run(told().turn(5).ended(6, status=number)).status == status


def test_a_failed_run_says_why_without_its_stack_trace() -> None:
    outer = details("TaskFailedError", "i: Activity task #1 failed: no")
    outer.innerFailure.CopyFrom(details("ValueError", "no"))
    found = run(told().turn(5).ended(6, status=3, failureDetails=outer))
    inner = Failure("ValueError", "no")
    assert found.failure == Failure("TaskFailedError", "i: Activity task #1 failed: no", inner)
    assert found.failure.root == inner
    assert "line 1" not in repr(found)


def test_a_child_names_its_parent_and_a_version_its_patches() -> None:
    parent = protos.ParentInstanceInfo(
        taskScheduledId=7, appID="shop", workflowInstance=protos.WorkflowInstance(instanceId="p")
    )
    parent.name.value = "parent"
    found = run(Told().turn(1, name="v2", patches=["a"]).started(0, parentInstance=parent).turn(2, patches=["a", "b"]))
    assert found.parent == Parent("p", "parent", "shop", 7)
    assert found.version == "v2"
    assert found.patches == ("a", "b")
    assert run(Told().turn(1).started(0, version="v1")).version == "v1"


def test_a_start_in_the_future_begins_then() -> None:
    later = protos.ExecutionStartedEvent()
    later.scheduledStartTimestamp.FromDatetime(at(100))
    stamp = later.scheduledStartTimestamp
    assert run(Told().turn(101).started(0, scheduledStartTimestamp=stamp)).started_at == at(100)


def test_a_step_and_its_attempts() -> None:
    events = told().scheduled(2, 1, "draft", "k1", text='{"turn": 1}')
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
    events = told().scheduled(2, 1).turn(4).failed(3, 1).pauses(4, 2, due=9)
    events.timer(4, 3, 20, createTimer=protos.TimerOriginCreateTimer()).turn(9.5).fired(9.2, 2).scheduled(10, 4)
    found = run(events)
    (pause,) = found.pauses
    assert (pause.of, pause.started_at, pause.due_at, pause.ended_at, pause.child) == (
        "k",
        at(4),
        at(9),
        at(9.2),
        False,
    )
    (timer,) = found.timers
    assert (timer.event_id, timer.started_at, timer.due_at, timer.ended_at) == (3, at(4), at(20), None)
    assert found.waits == ()


def test_steps_side_by_side_keep_their_own_attempts() -> None:
    events = told().scheduled(2, 1, "a", "k1").scheduled(2, 2, "a", "k2")
    events.turn(4).failed(3, 2).completed(3.5, 1).pauses(4, 3, 5, "k2").turn(5).fired(5, 3).scheduled(5, 4, "a", "k2")
    one, two = run(events).steps
    assert [attempt.outcome for attempt in one.attempts] == ["completed"]
    assert [attempt.outcome for attempt in two.attempts] == ["failed", "open"]


def test_what_a_run_leaves_behind_is_lost() -> None:
    events = (
        told()
        .scheduled(2, 1)
        .child(2, 2)
        .waits(2, 3, "decision")
        .turn(5)
        .add(4, executionTerminated=protos.ExecutionTerminatedEvent(recurse=True))
    )
    before = run(events)
    assert (before.steps[0].last.outcome, before.children[0].last.outcome) == (AttemptOutcome.OPEN, AttemptOutcome.OPEN)
    assert before.waits[0].outcome == "open"
    found = run(events.ended(5, status=5, text='{"reason": "x"}'))
    assert (found.steps[0].last.outcome, found.children[0].last.outcome) == (AttemptOutcome.LOST, AttemptOutcome.LOST)
    assert found.waits[0].outcome == "abandoned"
    assert found.status is RunStatus.TERMINATED


def test_a_retried_child_is_one_child() -> None:
    retry = protos.TimerOriginChildWorkflowRetry(instanceId="i:0001")
    events = told().child(2, 1).turn(4).child_failed(3, 1).timer(4, 2, 5, childWorkflowRetry=retry)
    events.turn(5).fired(5, 2).child(5, 3).turn(7).child_completed(6, 3, '"ok"')
    found = run(events)
    (child,) = found.children
    assert (child.instance_id, child.name) == ("i:0001", "c")
    assert [attempt.outcome for attempt in child.attempts] == ["failed", "completed"]
    assert child.last.result == Payload('"ok"')
    assert [(pause.of, pause.child) for pause in found.pauses] == [("i:0001", True)]


def test_a_detached_child_is_let_go() -> None:
    body = protos.DetachedWorkflowInstanceCreatedEvent(instanceId="other")
    (child,) = run(told().add(2, 1, detachedWorkflowInstanceCreated=body)).children
    assert (child.instance_id, child.detached, child.last.outcome) == ("other", True, AttemptOutcome.OPEN)


def test_a_step_in_another_app_says_so() -> None:
    near, far = run(told().scheduled(2, 1, key="k1", app="agent").scheduled(2, 2, key="k2", app="books")).steps
    assert (near.app_id, far.app_id) == (None, "books")


def test_suspensions() -> None:
    events = told().turn(3).suspended(2, "lunch")
    assert run(events).status is RunStatus.SUSPENDED
    events.turn(4).suspended(3.5).turn(6).resumed(5).turn(8).resumed(7)
    found = run(events)
    assert found.suspensions == (Suspension(at(2), at(5), "lunch"),)
    assert found.status is RunStatus.RUNNING


def test_stalls() -> None:
    events = told().stalled(3, 2, "too big")
    assert run(events).status is RunStatus.STALLED
    found = run(events.turn(9).resumed(8))
    (stall,) = found.stalls
    assert (stall.at, stall.reason, stall.description, stall.ended_at) == (
        at(3),
        "PAYLOAD_SIZE_EXCEEDED",
        "too big",
        at(9),
    )
    assert found.status is RunStatus.RUNNING


def test_a_run_that_stalls_before_it_starts() -> None:
    found = run(Told().stalled(3, 1, "no v2"))
    assert (found.status, found.started_at, found.name) == (RunStatus.STALLED, None, "")


def test_a_continued_generation_is_told_from_a_first_one() -> None:
    first = run(told().scheduled(2, 1))
    later = run(Told().turn(10, app="agent").started(10.001).raised(None, "go", "7").waits(11, 1, "next"))
    routed = run(Told().turn(1, app="agent").started(0))
    assert (first.continued, routed.continued, later.continued) == (False, False, True)
    (event,) = later.raised
    assert (event.at, event.wait) == (at(10.001), None), "an event carried over has no time of its own"


def test_a_schedule_that_is_written_again_is_one_attempt() -> None:
    events = told().turn(3).raised(2, "go").suspended(2.5).scheduled(3, 1).waits(3, 2, "x")
    events.turn(5).raised(4, "noise").scheduled(5, 1).waits(5, 2, "x")
    events.turn(8).completed(7, 1).scheduled(8, 1).waits(8, 2, "x")
    found = run(events)
    assert [(each.number, each.scheduled_at, each.outcome) for each in found.steps[0].attempts] == [
        (1, at(3), "completed")
    ]
    assert len(found.waits) == 1
    assert found.repeats == 4
    assert found.events == len(events.events)


def test_a_rerun_marks_what_it_inherits() -> None:
    events = told().scheduled(2, 1, "a", "k1").turn(4).completed(3, 1).scheduled(4, 2, "b", "k2")
    events.scheduled(1000, 3, "c", "k3")  # unfinished in the other run, so Dapr schedules it again too
    events.events[-2], events.events[-1] = events.events[-1], events.events[-2]
    events.events[-1].timestamp.FromDatetime(at(1000))
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    events.turn(1002).completed(1001, 2).ended(1002)
    found = run(events)
    assert found.rerun_of == "first"
    assert {step.name: step.last.inherited for step in found.steps} == {"a": True, "c": False, "b": False}
    assert found.attempts == 2
    assert (found.started_at, found.ended_at) == (at(1000), at(1002))
    assert found.replays == (Replay(at(1002), at(1002)),)


def test_a_rerun_of_a_rerun_begins_at_its_own_event() -> None:
    events = told().scheduled(2, 1, "a", "k1")
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    events.turn(4).completed(3, 1).scheduled(50, 2, "b", "k2")
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "second"
    found = run(events)
    assert found.rerun_of == "second"
    assert [step.last.inherited for step in found.steps] == [True, False]


def unnamed(**origin: object) -> Told:
    """Two steps of one name side by side without execution ids, both failed; both retried after a timer."""
    events = told().scheduled(2, 1, "a", "", "1").scheduled(2, 2, "a", "", "2").scheduled(2, 3, "b", "", "1")
    events.turn(4).failed(3, 1).failed(3, 2).completed(3, 3).timer(4, 4, 5, **origin).timer(4, 5, 6, **origin)
    events.turn(5).fired(5, 4).fired(5, 5).scheduled(5, 6, "a", "", "2").scheduled(5, 7, "a", "", "1")
    return events.turn(9).completed(8, 6).completed(8, 7)


@pytest.mark.parametrize("origin", [{}, {"activityRetry": protos.TimerOriginActivityRetry()}])
def test_retries_without_execution_ids_are_found_by_what_they_leave(origin: dict[str, object]) -> None:
    found = run(unnamed(**origin))
    assert {step.execution_id: [attempt.event_id for attempt in step.attempts] for step in found.steps} == {
        "#1": [1, 7],
        "#2": [2, 6],
        "#3": [3],
    }
    assert sorted(pause.of for pause in found.pauses) == ["#1", "#2"]
    assert found.timers == ()


def test_equal_unnamed_steps_are_each_retried_once() -> None:
    """Failed in one turn, and each in a turn of its own, the later one retried first."""
    events = told().scheduled(2, 1, "a", "").scheduled(2, 2, "a", "")
    events.turn(4).failed(3, 1).failed(3, 2).timer(4, 3, 5).timer(4, 4, 5)
    events.turn(5).fired(5, 3).fired(5, 4).scheduled(5, 5, "a", "").scheduled(5, 6, "a", "")
    events.turn(7).failed(6, 5).timer(7, 7, 20).turn(9).failed(8, 6).timer(9, 8, 10)
    events.turn(10).fired(10, 8).scheduled(10, 9, "a", "").turn(20).fired(20, 7).scheduled(20, 10, "a", "")
    found = run(events)
    steps = {step.execution_id: [attempt.event_id for attempt in step.attempts] for step in found.steps}
    assert steps == {"#1": [1, 5, 10], "#2": [2, 6, 9]}
    assert [(pause.event_id, pause.of) for pause in found.pauses] == [(3, "#1"), (4, "#2"), (7, "#1"), (8, "#2")]


def test_a_loop_of_the_code_without_execution_ids_is_no_retry() -> None:
    own_timer = protos.TimerOriginCreateTimer()
    events = told().scheduled(2, 1, "a", "").turn(4).failed(3, 1).timer(4, 2, 5, createTimer=own_timer)
    found = run(events.turn(5).fired(5, 2).scheduled(5, 3, "a", ""))
    assert [step.execution_id for step in found.steps] == ["#1", "#3"]
    assert len(found.timers) == 1


def test_kinds_that_say_nothing_of_the_work_are_only_counted() -> None:
    events = told().add(2, 1, eventSent=protos.EventSentEvent(instanceId="o", name="n"))
    events.add(3, continueAsNew=protos.ContinueAsNewEvent()).add(3, workflowCompleted=protos.WorkflowCompletedEvent())
    events.add(3).completed(4, 77).fired(4, 78).child_completed(4, 79)
    found = run(events)
    assert found.events == len(events.events)
    assert (found.steps, found.children, found.timers, found.status) == ((), (), (), RunStatus.RUNNING)


def test_signers_in_the_order_of_their_work() -> None:
    events = told().scheduled(2, 1, key="k1").scheduled(2, 2, key="k2").scheduled(2, 3, key="k3")
    events.turn(5).completed(4, 3, signer=b"\x02").completed(3, 1, signer=b"\x01").completed(3, 2, signer=b"\x01")
    assert run(events).signers == ("01", "02")


def test_signers_of_a_step_that_was_retried_while_others_worked() -> None:
    events = told().scheduled(2, 1, key="k1").scheduled(2, 2, key="k2")
    events.turn(4).failed(3, 1).completed(3, 2, signer=b"\x02").pauses(4, 3, 5, "k1").turn(5).fired(5, 3)
    events.scheduled(5, 4, key="k1").turn(7).completed(6, 4, signer=b"\x01")
    assert run(events).signers == ("02", "01")


def test_the_first_end_counts() -> None:
    (step,) = run(told().scheduled(2, 1).turn(4).completed(3, 1).turn(6).failed(5, 1)).steps
    assert (step.last.outcome, step.last.ended_at) == (AttemptOutcome.COMPLETED, at(3))


def test_clocks_that_differ_make_no_negative_time() -> None:
    found = run(told().scheduled(0.5, 1).stalled(4).turn(3))
    assert found.replays[0] == Replay(at(1), at(1))
    assert found.stalls[0].ended_at == at(4)


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
    found = run(events)
    schedules = [event for event in events.events if event.HasField("taskScheduled") or event.HasField("timerCreated")]
    kept = found.attempts + len(found.timers) + len(found.waits) + len(found.pauses)
    assert kept + found.repeats == len(schedules)
    assert len(found.raised) == sum(event.HasField("eventRaised") for event in events.events)
    answered = [event.wait for event in found.raised if event.wait is not None]
    assert sorted(answered) == sorted(wait.event_id for wait in found.waits if wait.outcome == "answered")
    assert all(wait.ended_at is None or wait.ended_at >= wait.started_at for wait in found.waits)
