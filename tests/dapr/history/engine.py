"""A small workflow engine for tests: the SDK's own replay, with a history as Dapr would write it.

The workflow's code records what each wait really got. A parser is right if it finds the same in the history.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from dapr.ext.workflow._durabletask.internal import protos
from dapr.ext.workflow._durabletask.worker import _OrchestrationExecutor, _Registry

INSTANCE = "acme:T-1"
_QUIET = logging.getLogger("tests.dapr.history.engine")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
_ACTIONS = {
    "scheduleTask": ("taskScheduled", protos.TaskScheduledEvent),
    "createTimer": ("timerCreated", protos.TimerCreatedEvent),
    "createChildWorkflow": ("childWorkflowInstanceCreated", protos.ChildWorkflowInstanceCreatedEvent),
}


class Engine:
    """One instance of `workflow`; each event takes a millisecond. Triggers wait in the inbox for the next `turn`."""

    def __init__(self, workflow: Callable[[Any, Any], Any], start_ms: int = 1_000_000) -> None:
        self._registry = _Registry()
        self._registry.add_named_orchestrator("w", workflow)
        self._now_ms = start_ms
        self.history: list[Any] = []
        self.inbox: list[Any] = []
        instance = protos.WorkflowInstance(instanceId=INSTANCE)
        self.trigger(executionStarted=protos.ExecutionStartedEvent(name="w", workflowInstance=instance))
        self.turn()

    @property
    def ended(self) -> bool:
        """Whether the workflow has completed."""
        return bool(self.history[-1].HasField("executionCompleted"))

    def trigger(self, **kind: Any) -> None:
        """Adds a trigger to the inbox."""
        self.inbox.append(self._event(-1, **kind))

    def raise_event(self, name: str, payload: str) -> None:
        """Raises an external event."""
        body = protos.EventRaisedEvent(name=name)
        body.input.value = payload
        self.trigger(eventRaised=body)

    def complete(self, event_id: int) -> None:
        """Completes an activity."""
        self.trigger(taskCompleted=protos.TaskCompletedEvent(taskScheduledId=event_id))

    def fail(self, event_id: int) -> None:
        """Fails an activity."""
        details = protos.TaskFailureDetails(errorType="RuntimeError", errorMessage="no")
        self.trigger(taskFailed=protos.TaskFailedEvent(taskScheduledId=event_id, failureDetails=details))

    def fire(self, event_id: int) -> None:
        """Fires a timer."""
        self.trigger(timerFired=protos.TimerFiredEvent(timerId=event_id))

    def open(self, kind: str, end: Iterable[str], id_field: str) -> list[int]:
        """The ids of schedules of this kind whose end is neither in the history nor in the inbox."""
        over = {
            getattr(getattr(event, name), id_field)
            for event in [*self.history, *self.inbox]
            for name in end
            if event.HasField(name)
        }
        return [event.eventId for event in self.history if event.HasField(kind) and event.eventId not in over]

    def turn(self) -> None:
        """Runs the workflow's code with the inbox, and writes its actions to the history."""
        new = [self._event(-1, workflowStarted=protos.WorkflowStartedEvent()), *self.inbox]
        self.inbox = []
        result = _OrchestrationExecutor(self._registry, _QUIET).execute(INSTANCE, self.history, new)
        self.history += new
        for action in result.actions:
            self._write(action)

    def _write(self, action: Any) -> None:
        kind = action.WhichOneof("workflowActionType")
        body = getattr(action, kind)
        if kind == "completeWorkflow":
            done = protos.ExecutionCompletedEvent(workflowStatus=body.workflowStatus, result=body.result)
            if body.HasField("failureDetails"):
                done.failureDetails.CopyFrom(body.failureDetails)
            self.history.append(self._event(action.id, executionCompleted=done))
            return
        name, shape = _ACTIONS[kind]
        copied = {
            field.name: value for field, value in body.ListFields() if field.name in shape.DESCRIPTOR.fields_by_name
        }
        self.history.append(self._event(action.id, **{name: shape(**copied)}))

    def _event(self, event_id: int, **kind: Any) -> Any:
        self._now_ms += 1
        event = protos.HistoryEvent(eventId=event_id, **kind)
        event.timestamp.FromMilliseconds(self._now_ms)
        return event
