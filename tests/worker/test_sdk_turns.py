"""Turns of a workflow through the SDK, as mended: whatever arrives, in whatever order, it comes back."""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest
from dapr.ext.workflow._durabletask import worker as sdk
from dapr.ext.workflow._durabletask.internal import protos

from app.dapr import sdk_patches

COMPLETED, TERMINATED, FAILED = (
    getattr(protos, f"ORCHESTRATION_STATUS_{name}") for name in ("COMPLETED", "TERMINATED", "FAILED")
)


@pytest.fixture(autouse=True)
def mended() -> None:
    """The SDK, as the worker mends it."""
    sdk_patches.survive_pauses()
    sdk_patches.survive_events()


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK as it is installed."""
    executor = sdk._OrchestrationExecutor
    monkeypatch.setattr(sdk, "_is_suspendable", sdk._is_suspendable.unpatched)
    monkeypatch.setattr(executor, "process_event", executor.process_event.unpatched)


def waits_and_works(context: Any, _input: Any) -> Generator[Any, Any, list[Any]]:
    """Waits for an event, does a step, waits for another event."""
    first = yield context.wait_for_external_event("decision")
    yield context.call_activity("step")
    second = yield context.wait_for_external_event("decision")
    return [first, second]


def event(**kind: Any) -> Any:
    """One event of a history."""
    return protos.HistoryEvent(eventId=-1, **kind)


def raised(payload: str, name: str = "decision") -> Any:
    """An event from outside with this text as its payload."""
    found = event(eventRaised=protos.EventRaisedEvent(name=name))
    found.eventRaised.input.value = payload
    return found


def paused() -> Any:
    """Somebody pauses."""
    return event(executionSuspended=protos.ExecutionSuspendedEvent())


def resumed() -> Any:
    """Somebody resumes."""
    return event(executionResumed=protos.ExecutionResumedEvent())


def terminated() -> Any:
    """Somebody terminates."""
    return event(executionTerminated=protos.ExecutionTerminatedEvent())


def turn(*arrived: Any, past: Iterable[Any] = ()) -> list[Any]:
    """What the workflow asks for, after its start, what is `past`, and what has `arrived`."""
    registry = sdk._Registry()
    registry.add_named_orchestrator("w", waits_and_works)
    start = [
        event(workflowStarted=protos.WorkflowStartedEvent()),
        event(executionStarted=protos.ExecutionStartedEvent()),
    ]
    start[1].executionStarted.name = "w"
    executor = sdk._OrchestrationExecutor(registry, logging.getLogger("quiet"))
    return list(executor.execute("acme:T-1", [*start, *past], list(arrived)).actions)


def ended(actions: list[Any]) -> int | None:
    """The status with which the run ends; None when it goes on."""
    (found,) = [each for each in actions if each.HasField("completeWorkflow")] or [None]
    return int(found.completeWorkflow.workflowStatus) if found is not None else None


def asked(actions: list[Any]) -> int:
    """How many steps are scheduled."""
    return sum(each.HasField("scheduleTask") for each in actions)


def test_a_step_that_was_scheduled_behind_a_pause_is_not_scheduled_again() -> None:
    scheduled = protos.HistoryEvent(eventId=1, taskScheduled=protos.TaskScheduledEvent(name="step"))
    assert asked(turn(raised("0", "other"), past=[raised("1"), paused(), scheduled])) == 0


@pytest.mark.usefixtures("unpatched")
def test_without_the_patches_the_installed_sdk_has_these_defects() -> None:
    """One that it has no more needs no patch any more: its row in app/dapr/workarounds.py says since when."""
    scheduled = protos.HistoryEvent(eventId=1, taskScheduled=protos.TaskScheduledEvent(name="step"))
    assert asked(turn(raised("0", "other"), past=[raised("1"), paused(), scheduled])) == 1
    assert ended(turn(resumed())) == FAILED
    assert ended(turn(raised("{"))) == FAILED
    assert asked(turn(terminated(), raised("1"))) == 1


def test_a_task_that_was_paused_twice_goes_on_when_it_is_resumed() -> None:
    actions = turn(paused(), paused(), raised("1"), resumed())
    assert asked(actions) == 1
    assert asked(turn(resumed(), past=[paused(), raised("1"), paused()])) == 1


def test_a_task_that_is_resumed_twice_or_without_a_pause_goes_on() -> None:
    for arrived in ([resumed()], [paused(), resumed(), resumed()], [resumed(), resumed(), paused(), resumed()]):
        assert ended(turn(*arrived)) is None
        assert asked(turn(*arrived, raised("1"))) == 1


def test_a_paused_task_can_be_terminated_and_asks_for_nothing_any_more() -> None:
    for behind in ([], [resumed()], [raised("1")], [paused(), resumed()]):
        actions = turn(paused(), raised("1"), terminated(), *behind)
        assert ended(actions) == TERMINATED
        assert asked(actions) == 0


@pytest.mark.parametrize(
    "payload", ["", "null", "no json", "{", "[" * 100_000, '{"a":' * 50_000, "9" * 5_000, "\x00", '"\\ud800"', "NaN"]
)
@pytest.mark.parametrize("name", ["decision", "resume", "nobody waits for this", ""])
def test_a_payload_that_is_no_json_fails_no_workflow(payload: str, name: str) -> None:
    actions = turn(raised(payload, name), raised("1"))
    assert ended(actions) is None
    assert asked(actions) == 1


def test_any_order_of_what_people_may_send_comes_back_and_says_the_same_when_it_is_replayed() -> None:
    senders: tuple[Callable[[], Any], ...] = (
        paused,
        resumed,
        terminated,
        lambda: raised("1"),
        lambda: raised("{"),
        lambda: raised("2", "other"),
    )
    chance = random.Random(7)
    short = itertools.chain.from_iterable(itertools.product(senders, repeat=length) for length in (1, 2, 3))
    long = ([chance.choice(senders) for _ in range(30)] for _ in range(200))
    for order in itertools.chain(short, long):
        events = [send() for send in order]
        at_once = turn(*events)
        assert ended(at_once) in (None, TERMINATED)
        later = turn(events[-1], past=events[:-1])
        assert [each.SerializeToString() for each in at_once] == [each.SerializeToString() for each in later]


def test_json_payloads_arrive_as_they_were_sent() -> None:
    done = event(taskCompleted=protos.TaskCompletedEvent(taskScheduledId=1))
    scheduled = protos.HistoryEvent(eventId=1, taskScheduled=protos.TaskScheduledEvent(name="step"))
    actions = turn(done, raised('{"verdict": "reject"}'), past=[raised("0"), scheduled])
    assert ended(actions) == COMPLETED
    assert json.loads(actions[0].completeWorkflow.result.value) == [0, {"verdict": "reject"}]
