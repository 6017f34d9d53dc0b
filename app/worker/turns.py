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

import ctypes
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

from dapr.ext.workflow._durabletask.internal import helpers, protos
from dapr.ext.workflow._durabletask.task import NonDeterminismError

from app.dapr import sdk_patches
from app.domain.decision_texts import BROKEN
from app.domain.models import Progress, TaskStatus
from app.domain.standing import Standing, ended, under_way

log = logging.getLogger(__name__)


# What a turn of a workflow says about its task: read from what the sidecar asked and what the worker answered.

_ENDED = {
    protos.ORCHESTRATION_STATUS_COMPLETED: TaskStatus.COMPLETED,
    protos.ORCHESTRATION_STATUS_FAILED: TaskStatus.FAILED,
    protos.ORCHESTRATION_STATUS_TERMINATED: TaskStatus.TERMINATED,
    protos.ORCHESTRATION_STATUS_CANCELED: TaskStatus.TERMINATED,
}


def standing_after(request: Any, response: Any) -> Standing | None:
    """Where the task stands after the turn; None where nothing changed that a list shows: it runs, and never rested."""
    complete = next(
        (action.completeWorkflow for action in response.actions if action.HasField("completeWorkflow")), None
    )
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


# Ends Python code that keeps a thread and does not give it back.
#
# What runs on an event loop cannot be timed out by that loop. So a second thread looks once a second whether the same
# piece of work is still at it; after so many looks it raises an exception in the thread that works. Looks are counted
# and not seconds: a process that was stopped, or a machine that stood still, is not taken for an endless loop.
#
# It cannot reach a single call of C code that never returns; workflow turns and steps make none on a text of unknown
# length. Costs a microsecond for each piece of work.

Result = TypeVar("Result")

LOOKS = 30
_PAUSE_SECONDS = 1.0
# The exception was swallowed (by a finalizer, say): it is raised again after so many more looks.
_AGAIN_AFTER = 5


class Overdue(RuntimeError):
    """The work did not come back; `place` says where it was, without any values."""

    def __init__(self, seconds: float, place: str) -> None:
        super().__init__(f"it did not come back within {seconds:.0f} s; it was at {place}")
        self.place = place


class _Enough(BaseException):
    """Raised in the thread that works. No `Exception`, which the work might catch as one of its own."""


class Watchdog:
    """Watches the pieces of work of one thread, one at a time. `watch` begins in another thread, `rest` ends it."""

    def __init__(self, *, looks: int = LOOKS, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self.limit_seconds = looks * pause_seconds
        self._looks = looks
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._worker: int | None = None  # the thread that is at work now
        self._number = 0  # of the piece of work
        self._raised = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Begins."""
        self._end.clear()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def rest(self) -> None:
        """Ends."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def run(self, work: Callable[[], Result]) -> Result:
        """Does the work here and now. Raises Overdue when it took too long, else what the work raises."""
        try:
            self._begin()
            try:
                return work()
            finally:
                self._done()
        except _Enough as enough:
            self._surely_done()
            raise Overdue(self.limit_seconds, _place(enough)) from None

    async def drive(self, work: Awaitable[Result]) -> Result:
        """Awaits the work; each stretch of it between two waits is watched. Raises Overdue."""
        result: Result = await _Driven(self, work)
        return result

    def _begin(self) -> None:
        with self._lock:
            self._number += 1
            self._worker = threading.get_ident()

    def _done(self) -> None:
        """Once this has returned nothing can be raised any more: it takes back what is on its way."""
        with self._lock:
            self._worker = None
            if self._raised:
                self._raised = False
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)

    def _surely_done(self) -> None:
        while True:
            try:
                self._done()
                return
            except _Enough:
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
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._worker), ctypes.py_object(_Enough))


class _Driven:
    """An awaitable around another one."""

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
                step = _thrown(inner, error)
            else:
                step = _sent(inner, sent)


def _sent(inner: Any, value: Any) -> Callable[[], Any]:
    return lambda: inner.send(value) if value is not None else next(inner)


def _thrown(inner: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: inner.throw(error)


def _place(enough: BaseException) -> str:
    """File, line and name of the innermost calls of the work itself."""
    frames = []
    trace = enough.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename != __file__:
            frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-3:])) or "its very end"


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
