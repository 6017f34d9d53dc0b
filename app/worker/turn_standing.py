"""What a turn of a workflow says about its task: read from what the sidecar asked and what the worker answered."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import Any

from dapr.ext.workflow._durabletask.internal import protos

from app.domain.models import TaskStatus
from app.domain.standing import Standing, ended, under_way

_ENDED = {
    protos.ORCHESTRATION_STATUS_COMPLETED: TaskStatus.COMPLETED,
    protos.ORCHESTRATION_STATUS_FAILED: TaskStatus.FAILED,
    protos.ORCHESTRATION_STATUS_TERMINATED: TaskStatus.TERMINATED,
    protos.ORCHESTRATION_STATUS_CANCELED: TaskStatus.TERMINATED,
}


def standing_after(request: Any, response: Any) -> Standing | None:
    """Where the task stands after the turn; None where nothing changed that a list shows: it runs, and never rested."""
    complete = next((each.completeWorkflow for each in response.actions if each.HasField("completeWorkflow")), None)
    if complete is not None and complete.workflowStatus in _ENDED:
        failure = complete.failureDetails.errorMessage if complete.HasField("failureDetails") else None
        output = complete.result.value if complete.HasField("result") else None
        return ended(_ENDED[complete.workflowStatus], _began(request), output, failure)
    if not response.HasField("customStatus") and not any(map(_holds, request.newEvents)):
        return None
    holds = [event for event in chain(request.pastEvents, request.newEvents) if _holds(event)]
    held = TaskStatus.PAUSED if holds and holds[-1].HasField("executionSuspended") else None
    return under_way(response.customStatus.value, _began(request), held)


def _holds(event: Any) -> bool:
    return bool(event.HasField("executionSuspended") or event.HasField("executionResumed"))


def _began(request: Any) -> datetime:
    """When the sidecar began the turn, which is when the history says that it was run."""
    starts = [event for event in request.newEvents if event.HasField("workflowStarted")]
    return (starts or request.newEvents)[-1].timestamp.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]
