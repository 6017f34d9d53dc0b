"""Turns through the patched SDK: they return for any events in any order."""

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
def patched() -> None:
    """The SDK with the worker's patches."""
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
    event_raised = event(eventRaised=protos.EventRaisedEvent(name=name))
    event_raised.eventRaised.input.value = payload
    return event_raised


def paused() -> Any:
    """A pause."""
    return event(executionSuspended=protos.ExecutionSuspendedEvent())


def resumed() -> Any:
    """A resume."""
    return event(executionResumed=protos.ExecutionResumedEvent())


def terminated() -> Any:
    """A terminate."""
    return event(executionTerminated=protos.ExecutionTerminatedEvent())


def turn(*arrived: Any, past: Iterable[Any] = ()) -> list[Any]:
    """The workflow's actions in a turn with the events `arrived`, after its start and the events `past`."""
    registry = sdk._Registry()
    registry.add_named_orchestrator("w", waits_and_works)
    start = [
        event(workflowStarted=protos.WorkflowStartedEvent()),
        event(executionStarted=protos.ExecutionStartedEvent()),
    ]
    start[1].executionStarted.name = "w"
    executor = sdk._OrchestrationExecutor(registry, logging.getLogger("quiet"))
    return list(executor.execute("acme:T-1", [*start, *past], list(arrived)).actions)


def end_status(actions: list[Any]) -> int | None:
    """The status with which the run ends; None if it continues."""
    (completion,) = [action for action in actions if action.HasField("completeWorkflow")] or [None]
    return int(completion.completeWorkflow.workflowStatus) if completion is not None else None


def scheduled_steps(actions: list[Any]) -> int:
    """The number of steps that are scheduled."""
    return sum(action.HasField("scheduleTask") for action in actions)


def test_a_step_that_was_scheduled_behind_a_pause_is_not_scheduled_again() -> None:
    scheduled = protos.HistoryEvent(eventId=1, taskScheduled=protos.TaskScheduledEvent(name="step"))
    assert scheduled_steps(turn(raised("0", "other"), past=[raised("1"), paused(), scheduled])) == 0


@pytest.mark.usefixtures("unpatched")
def test_without_the_patches_the_installed_sdk_has_these_defects() -> None:
    """If this fails, the installed SDK has fixed a defect: set `fixed_in` in its row of app/dapr/workarounds.py."""
    scheduled = protos.HistoryEvent(eventId=1, taskScheduled=protos.TaskScheduledEvent(name="step"))
    assert scheduled_steps(turn(raised("0", "other"), past=[raised("1"), paused(), scheduled])) == 1
    assert end_status(turn(resumed())) == FAILED
    assert end_status(turn(raised("{"))) == FAILED
    assert scheduled_steps(turn(terminated(), raised("1"))) == 1


def test_a_task_that_was_paused_twice_continues_when_resumed() -> None:
    actions = turn(paused(), paused(), raised("1"), resumed())
    assert scheduled_steps(actions) == 1
    assert scheduled_steps(turn(resumed(), past=[paused(), raised("1"), paused()])) == 1


def test_a_task_that_is_resumed_twice_or_without_a_pause_continues() -> None:
    for arrived in ([resumed()], [paused(), resumed(), resumed()], [resumed(), resumed(), paused(), resumed()]):
        assert end_status(turn(*arrived)) is None
        assert scheduled_steps(turn(*arrived, raised("1"))) == 1


def test_a_paused_task_can_be_terminated_and_schedules_nothing_more() -> None:
    for behind in ([], [resumed()], [raised("1")], [paused(), resumed()]):
        actions = turn(paused(), raised("1"), terminated(), *behind)
        assert end_status(actions) == TERMINATED
        assert scheduled_steps(actions) == 0


@pytest.mark.parametrize(
    "payload", ["", "null", "no json", "{", "[" * 100_000, '{"a":' * 50_000, "9" * 5_000, "\x00", '"\\ud800"', "NaN"]
)
@pytest.mark.parametrize("name", ["decision", "resume", "nobody waits for this", ""])
def test_a_payload_that_is_not_json_fails_no_workflow(payload: str, name: str) -> None:
    actions = turn(raised(payload, name), raised("1"))
    assert end_status(actions) is None
    assert scheduled_steps(actions) == 1


def test_events_in_any_order_return_and_replay_to_the_same_actions() -> None:
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
        assert end_status(at_once) in (None, TERMINATED)
        later = turn(events[-1], past=events[:-1])
        assert [action.SerializeToString() for action in at_once] == [action.SerializeToString() for action in later]


def test_json_payloads_arrive_as_they_were_sent() -> None:
    done = event(taskCompleted=protos.TaskCompletedEvent(taskScheduledId=1))
    scheduled = protos.HistoryEvent(eventId=1, taskScheduled=protos.TaskScheduledEvent(name="step"))
    actions = turn(done, raised('{"verdict": "reject"}'), past=[raised("0"), scheduled])
    assert end_status(actions) == COMPLETED
    assert json.loads(actions[0].completeWorkflow.result.value) == [0, {"verdict": "reject"}]
