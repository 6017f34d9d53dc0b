"""Workflow turns with a time limit and a watchdog, so that an endless turn stops neither the worker nor other tasks.

A turn that does not return is ended and answered on behalf of its workflow: no action, and the task shows as parked,
with the reason. So the sidecar does not hand out the turn again. Nothing is lost: the history keeps the events that
have arrived, and the workflow's next turn acts on them. That turn comes with the next event, such as `task resume`. If
it does not return either, the task is not tried again for a pause that doubles each time. A terminate needs no workflow
code, so a person can end such a task.

A turn whose code raises, or does not fit the task's history, would fail its task for good. It is answered in the same
way, and the task continues on a worker with correct code (`Projector`).
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from dapr.ext.workflow._durabletask.internal import helpers, protos
from dapr.ext.workflow._durabletask.task import NonDeterminismError

from app.dapr import sdk_patches
from app.domain.decision_texts import BROKEN
from app.domain.models import Progress, TaskStatus
from app.domain.standing import Standing, ended_standing, running_standing

log = logging.getLogger(__name__)

_STATUS_OF_END = {
    protos.ORCHESTRATION_STATUS_COMPLETED: TaskStatus.COMPLETED,
    protos.ORCHESTRATION_STATUS_FAILED: TaskStatus.FAILED,
    protos.ORCHESTRATION_STATUS_TERMINATED: TaskStatus.TERMINATED,
    protos.ORCHESTRATION_STATUS_CANCELED: TaskStatus.TERMINATED,
}


def standing_after(request: Any, response: Any) -> Standing | None:
    """The standing of a task after a turn, from the sidecar's request and the worker's response. None if the turn
    changed nothing that a list shows."""
    complete = next(
        (action.completeWorkflow for action in response.actions if action.HasField("completeWorkflow")), None
    )
    if complete is not None and complete.workflowStatus in _STATUS_OF_END:
        failure = complete.failureDetails.errorMessage if complete.HasField("failureDetails") else None
        output = complete.result.value if complete.HasField("result") else None
        return ended_standing(_STATUS_OF_END[complete.workflowStatus], _turn_started_at(request), output, failure)
    if not response.HasField("customStatus") and not any(map(_is_pause_or_resume, request.newEvents)):
        return None
    pauses = [event for event in chain(request.pastEvents, request.newEvents) if _is_pause_or_resume(event)]
    held = TaskStatus.PAUSED if pauses and pauses[-1].HasField("executionSuspended") else None
    return running_standing(response.customStatus.value, _turn_started_at(request), held)


def _is_pause_or_resume(event: Any) -> bool:
    return bool(event.HasField("executionSuspended") or event.HasField("executionResumed"))


def _turn_started_at(request: Any) -> datetime:
    """When the sidecar started the turn; the history has the same time."""
    starts = [event for event in request.newEvents if event.HasField("workflowStarted")]
    return (starts or request.newEvents)[-1].timestamp.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


Result = TypeVar("Result")

# The watchdog checks once a second, and ends a piece of work after this many checks.
LOOKS = 30
_PAUSE_SECONDS = 1.0
# If the work swallowed the exception (for example in a finalizer), it is raised again after this many more checks.
_AGAIN_AFTER = 5


class Overdue(RuntimeError):
    """Work that did not return within its limit. `place` says where in the code it was, without any values."""

    def __init__(self, seconds: float, place: str) -> None:
        super().__init__(f"it did not return within {seconds:.0f} s; it was at {place}")
        self.place = place


class _LimitReached(BaseException):
    """Raised in the working thread. Not an `Exception`, so that the work does not catch it as one of its own."""


class Watchdog:
    """Ends Python code that blocks a thread for too long. Watches one piece of work of one thread at a time.

    An event loop cannot time out what runs on it. So a second thread checks once a second whether the same piece of
    work still runs, and after `looks` checks raises an exception in the working thread. It counts checks, not seconds,
    so a process or machine that was frozen is not taken for an endless loop.

    A single call of C code that never returns cannot be ended; turns and steps make none on input of unbounded length.
    A watched piece of work costs a microsecond. `start` starts the checks, `stop` ends them.
    """

    def __init__(self, *, looks: int = LOOKS, pause_seconds: float = _PAUSE_SECONDS) -> None:
        """A watchdog that ends work after `looks` checks, with `pause_seconds` between two of them."""
        self.limit_seconds = looks * pause_seconds
        self._looks = looks
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._worker: int | None = None  # id of the thread that works now
        self._number = 0  # of the current piece of work
        self._raised = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread that checks."""
        self._end.clear()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread that checks."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def run(self, work: Callable[[], Result]) -> Result:
        """Runs the work in the calling thread. Raises Overdue if it takes too long, else what the work raises."""
        try:
            with self._lock:
                self._number += 1
                self._worker = threading.get_ident()
            try:
                return work()
            finally:
                self._finish()
        except _LimitReached as reached:
            self._finish_surely()
            raise Overdue(self.limit_seconds, _place(reached)) from None

    async def drive(self, work: Awaitable[Result]) -> Result:
        """Awaits the work and watches each stretch of it between two awaits. Raises Overdue."""
        result: Result = await _WatchedAwaitable(self, work)
        return result

    def _finish(self) -> None:
        """Ends the watch of the current work and takes back an exception that has not arrived yet. After this, none can
        be raised."""
        with self._lock:
            self._worker = None
            if self._raised:
                self._raised = False
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)

    def _finish_surely(self) -> None:
        while True:
            try:
                self._finish()
                return
            except _LimitReached:
                continue

    def _watch(self) -> None:
        seen, looks = 0, 0
        while not self._end.wait(self._pause):
            with self._lock:
                looks = looks + 1 if self._number == seen else 1
                seen = self._number
                late = looks > self._looks and (looks - self._looks) % _AGAIN_AFTER == 1
                if self._worker is not None and late:
                    self._raised = True
                    thread, error = ctypes.c_ulong(self._worker), ctypes.py_object(_LimitReached)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)


class _WatchedAwaitable:
    """Wraps an awaitable; the watchdog runs each of its stretches between two awaits."""

    def __init__(self, watchdog: Watchdog, work: Awaitable[Any]) -> None:
        self._watchdog = watchdog
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        step: Callable[[], Any] = inner.__next__
        while True:
            try:
                waits_for = self._watchdog.run(step)
            except StopIteration as end:
                return end.value
            try:
                sent = yield waits_for
            except BaseException as error:
                step = partial(inner.throw, error)
            else:
                step = inner.__next__ if sent is None else partial(inner.send, sent)


def _place(reached: BaseException) -> str:
    """File, line and function of the innermost three calls of the work, without those of this module."""
    frames = []
    trace = reached.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename != __file__:
            frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-3:])) or "its very end"


# After a turn that did not return, the task's next turns are not run for this long. It doubles with each such turn.
_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 60.0, 3_600.0


class Turns:
    """Runs the turns of one worker on its event loop.

    set_aside: number of turns that did not return. broken: number of turns whose code raised.
    """

    def __init__(
        self,
        execute: Callable[[Any, Any, str], None],
        watchdog: Watchdog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`execute` is the SDK's function. It takes a request, a stub that gets the response, and the item's token."""
        self._execute = execute
        self._watchdog = watchdog
        self._clock = clock
        self._resting: dict[str, tuple[float, float]] = {}  # by instance id: end and length of its rest
        self.set_aside = self.broken = 0

    def answer(self, item: Any) -> Any:
        """Runs a turn and returns its response. Never raises because of the workflow's code: a turn that does not
        return or raises is answered as parked."""
        request, token = item.workflowRequest, item.completionToken
        until, _ = self._resting.get(request.instanceId, (0.0, 0.0))
        if self._clock() < until:
            return _parked_response(request, token, self._overdue_reason(request.instanceId))
        stub = _ResponseHolder()
        sdk_patches.begin_turn(request)
        try:
            self._watchdog.run(lambda: self._execute(request, stub, token))
        except Overdue as overdue:
            self._set_aside(request.instanceId, overdue)
            return _parked_response(request, token, self._overdue_reason(request.instanceId))
        self._resting.pop(request.instanceId, None)
        failure = _failure(stub.response)
        if failure is None:
            return stub.response
        self.broken += 1
        return _parked_response(request, token, _broken_reason(request.instanceId, failure))

    def _set_aside(self, instance_id: str, overdue: Overdue) -> None:
        self.set_aside += 1
        _, before = self._resting.get(instance_id, (0.0, 0.0))
        rest = min(2 * before, _LONGEST_REST_SECONDS) or _FIRST_REST_SECONDS
        self._resting[instance_id] = (self._clock() + rest, rest)
        log.error(
            "task %s: a turn of its workflow is set aside: %s; not tried again for %.0f s", instance_id, overdue, rest
        )

    def _overdue_reason(self, instance_id: str) -> str:
        until, _ = self._resting[instance_id]
        return (
            f"workflow: a turn did not return within {self._watchdog.limit_seconds:.0f} s and was set aside; find its "
            f"place in the worker's log, correct the code, then `task resume {instance_id}`, or `task terminate` it; "
            f"this worker tries it again in {max(0.0, until - self._clock()):.0f} s at the earliest"
        )


def _failure(response: Any) -> Any | None:
    """The failure of the workflow's code in a response, which is always a bug: a failed step only parks its task."""
    for action in response.actions:
        if action.completeWorkflow.workflowStatus == protos.ORCHESTRATION_STATUS_FAILED:
            return action.completeWorkflow.failureDetails
    return None


def _broken_reason(instance_id: str, failure: Any) -> str:
    """The reason why a task is parked whose code raised. Without the error's message, which may quote a customer."""
    log.error(
        "task %s: its workflow raised %s; it is parked\n%s", instance_id, failure.errorType, failure.stackTrace.value
    )
    if failure.errorType == NonDeterminismError.__name__:
        problem = (
            "does not fit what this task has done: deploy the version that started it, or guard the change with a patch"
        )
    else:
        problem = f"raised {failure.errorType}: its place is in the worker's log; deploy a corrected version"
    return f"{BROKEN} {problem}; the task then continues automatically"


def _parked_response(request: Any, token: str, reason: str) -> Any:
    """The response of a parked workflow; if the turn has a terminate, that of a terminated one."""
    terminations = [event for event in request.newEvents if event.HasField("executionTerminated")]
    if terminations:
        return _terminated_response(request, terminations[0].executionTerminated.input.value or None, token)
    progress = Progress(status=TaskStatus.PARKED, reason=reason)
    return protos.WorkflowResponse(
        instanceId=request.instanceId,
        customStatus=helpers.get_string_value(progress.model_dump_json()),
        completionToken=token,
        version=_version(request),
    )


def _version(request: Any) -> Any | None:
    """The patches that the task has passed. daprd stalls a run whose response no longer names them."""
    versions = [event.workflowStarted.version for event in request.pastEvents if event.HasField("workflowStarted")]
    patches = [patch for version in versions for patch in version.patches]
    return protos.WorkflowVersion(patches=patches) if patches else None


def _terminated_response(request: Any, output: str | None, token: str) -> Any:
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


class _ResponseHolder:
    """Takes the place of the sidecar's stub when the SDK answers a turn, and keeps the response."""

    response: Any = None

    def CompleteOrchestratorTask(self, response: Any) -> None:
        self.response = response
