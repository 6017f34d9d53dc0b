"""Workflow turns within a bound: one that does not come back takes neither the worker nor the other tasks with it.

Such a turn is ended, and answered in its workflow's name: nothing is done, and the task shows as parked, with the
reason. So the sidecar does not hand the turn out again and again. Nothing is lost by that: the history keeps what has
arrived, and what the workflow wants to do follows from the history in its next turn. That turn comes with the next
event, such as a person's `task resume`; should it not come back either, the task is left alone for a while that
doubles. A person can end such a task: a terminate needs no workflow code.

A turn whose code raises, or does not fit what the task has done so far, would fail its task for good. It is answered in
the same way, and the task goes on under a worker whose code is right (`Projector`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from dapr.ext.workflow._durabletask.internal import helpers, protos
from dapr.ext.workflow._durabletask.task import NonDeterminismError

from app.dapr import sdk_patches
from app.domain.models import Progress, TaskStatus
from app.domain.reasons import BROKEN
from app.worker.watchdog import Overdue, Watchdog

log = logging.getLogger(__name__)

# After a turn that did not come back, the task's next ones are not even begun for so long; it doubles each time.
_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 60.0, 3_600.0


class Turns:
    """Runs the turns of one worker, on its event loop."""

    def __init__(
        self,
        execute: Callable[[Any, Any, str], None],
        watchdog: Watchdog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`execute` is the SDK's: takes a request, a stub to answer to, and the work item's token."""
        self._execute = execute
        self._watchdog = watchdog
        self._clock = clock
        self._resting: dict[str, tuple[float, float]] = {}  # by instance: until when, and how long
        self.set_aside = self.broken = 0

    def answer(self, item: Any) -> Any:
        """The turn's response, whatever the workflow does."""
        request, token = item.workflowRequest, item.completionToken
        until, _ = self._resting.get(request.instanceId, (0.0, 0.0))
        if self._clock() < until:
            return _parked(request, token, self._overdue(request.instanceId))
        kept = _Kept()
        sdk_patches.begin_turn(request)
        try:
            self._watchdog.run(lambda: self._execute(request, kept, token))
        except Overdue as overdue:
            self._set_aside(request.instanceId, overdue)
            return _parked(request, token, self._overdue(request.instanceId))
        self._resting.pop(request.instanceId, None)
        failure = _failure(kept.response)
        if failure is None:
            return kept.response
        self.broken += 1
        return _parked(request, token, _why(request.instanceId, failure))

    def _set_aside(self, instance_id: str, overdue: Overdue) -> None:
        self.set_aside += 1
        _, before = self._resting.get(instance_id, (0.0, 0.0))
        rest = min(2 * before, _LONGEST_REST_SECONDS) or _FIRST_REST_SECONDS
        self._resting[instance_id] = (self._clock() + rest, rest)
        log.error(
            "task %s: a turn of its workflow is set aside: %s; not tried again for %.0f s", instance_id, overdue, rest
        )

    def _overdue(self, instance_id: str) -> str:
        until, _ = self._resting[instance_id]
        return (
            f"workflow: a turn did not come back within {self._watchdog.limit_seconds:.0f} s and was set aside; find "
            f"its place in the worker's log, mend it, then `task resume {instance_id}`, or `task terminate` it; "
            f"this worker tries it again in {max(0.0, until - self._clock()):.0f} s at the earliest"
        )


def _failure(response: Any) -> Any | None:
    """What the workflow's code raised. It never means to: a step that fails for good parks its task."""
    for action in response.actions:
        if action.completeWorkflow.workflowStatus == protos.ORCHESTRATION_STATUS_FAILED:
            return action.completeWorkflow.failureDetails
    return None


def _why(instance_id: str, failure: Any) -> str:
    """Why the task is parked. The error's own words may hold what a customer wrote."""
    log.error(
        "task %s: its workflow raised %s; it is parked\n%s", instance_id, failure.errorType, failure.stackTrace.value
    )
    if failure.errorType == NonDeterminismError.__name__:
        what = (
            "does not fit what this task has done: deploy the version that began it, or guard the change with a patch"
        )
    else:
        what = f"raised {failure.errorType}: its place is in the worker's log; deploy a version that is mended"
    return f"{BROKEN} {what}; the task then goes on by itself"


def _parked(request: Any, token: str, reason: str) -> Any:
    """What the workflow would answer if it were parked; or its end, when somebody terminates it."""
    ends = [event for event in request.newEvents if event.HasField("executionTerminated")]
    if ends:
        return _terminated(request, ends[0].executionTerminated.input.value or None, token)
    progress = Progress(status=TaskStatus.PARKED, reason=reason)
    return protos.WorkflowResponse(
        instanceId=request.instanceId,
        customStatus=helpers.get_string_value(progress.model_dump_json()),
        completionToken=token,
        version=_version(request),
    )


def _version(request: Any) -> Any | None:
    """The patches that the task has passed already: daprd stalls one that no longer names them."""
    started = [event.workflowStarted.version for event in request.pastEvents if event.HasField("workflowStarted")]
    patches = [patch for version in started for patch in version.patches]
    return protos.WorkflowVersion(patches=patches) if patches else None


def _terminated(request: Any, output: str | None, token: str) -> Any:
    started = next(
        (event for event in (*request.pastEvents, *request.newEvents) if event.HasField("executionStarted")),
        protos.HistoryEvent(),
    )
    app_id = started.router.targetAppID or started.router.sourceAppID
    action = helpers.new_complete_workflow_action(
        -1,
        protos.ORCHESTRATION_STATUS_TERMINATED,
        output,
        router=protos.TaskRouter(sourceAppID=app_id) if app_id else None,
    )
    return protos.WorkflowResponse(instanceId=request.instanceId, actions=[action], completionToken=token)


class _Kept:
    """Stands in for the sidecar's stub where the SDK answers a turn: keeps the answer."""

    response: Any = None

    def CompleteOrchestratorTask(self, response: Any) -> None:
        self.response = response
