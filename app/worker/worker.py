"""The workflow worker on one event loop: work items in, workflow turns and activities run, results out.

The SDK's own loop hands each work item through three threads and two queues and sends each result from a thread of
its own; under load that was more than half of the worker's CPU time. This one replaces only that loop: registration,
replay and execution are the SDK's. A worker that stops takes no new work and lets running activities deliver.

Nothing here waits without a bound: a turn and each stretch of a step are watched, a step as a whole and each call of
the sidecar have a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow._durabletask import worker as sdk
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos, shared
from dapr.ext.workflow._durabletask.internal.helpers import new_failure_details
from dapr.ext.workflow.logger import LoggerOptions
from google.protobuf import empty_pb2

from app.dapr import sdk_patches
from app.dapr.daprd import Daprd
from app.dapr.history.causes import NOT_RETRIED
from app.dapr.sidecar import WorkerConnection
from app.domain.errors import RefundAgentError, StepOverdue
from app.domain.standing import Standing
from app.ledger.store.database import trouble
from app.worker import turns
from app.worker.execution_log import Executions, StepAttempt
from app.worker.turns import Overdue, Turns, Watchdog

log = logging.getLogger(__name__)

# Told of an instance where it stands after a turn that changed that.
Rested = Callable[[str, Standing], None]

# A sidecar that is gone is tried again this often.
_RECONNECT_SECONDS = 0.1
# Longer than anything that a step may wait for by its own time limits (app/llm/conversation.py, app/dapr/systems.py).
STEP_SECONDS = 900.0
# A call of the sidecar that takes longer is made again.
_CALL_SECONDS = 30.0
# A loop that moves says so this often.
_BEAT_SECONDS = 1.0
# After this, an activity that is still running is left to another worker: the sidecar hands it out again.
GRACE_SECONDS = 8.0


class Worker(WorkflowRuntime):  # type: ignore[misc]  # the SDK ships no types
    """The SDK's runtime with `EventLoopWorker` inside."""

    def __init__(
        self,
        daprd: Daprd,
        activities_at_once: int,
        rested: Rested,
        executions: Executions,
        sidecar: WorkerConnection,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Makes the worker; `start` connects it. `activities_at_once` bounds what is in flight; after `stop`, what is
        has `grace_seconds` left."""
        host, _, port = daprd.grpc.rpartition(":")
        sdk_patches.use_token(daprd.token)
        super().__init__(host=host, port=port, logger_options=LoggerOptions(log_handler=logging.NullHandler()))
        sdk_patches.survive_pauses()
        sdk_patches.survive_events()
        sdk_patches.name_steps_by_place()
        self.loop = EventLoopWorker(daprd, activities_at_once, rested, executions, sidecar, grace_seconds=grace_seconds)
        self._WorkflowRuntime__worker = self.loop

    def stop(self) -> None:
        """Takes no new work; what runs may deliver meanwhile."""
        self.shutdown()


def failure_details(error: Exception) -> protos.TaskFailureDetails:
    """What Dapr keeps of an activity's error. One of ours is written with its code first, without a stack trace, and
    under a type that says whether it is worth a retry."""
    if not isinstance(error, RefundAgentError):
        return new_failure_details(error)
    kind = type(error).__name__ if error.passing else NOT_RETRIED
    return protos.TaskFailureDetails(errorType=kind, errorMessage=error.coded)


class EventLoopWorker(sdk.TaskHubGrpcWorker):  # type: ignore[misc]  # the SDK ships no types
    """One stream of work items; every item is a coroutine on the loop that reads the stream."""

    def __init__(
        self,
        daprd: Daprd,
        activities_at_once: int,
        rested: Rested,
        executions: Executions,
        sidecar: WorkerConnection,
        watchdog: Watchdog | None = None,
        step_seconds: float = STEP_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        super().__init__(host_address=daprd.grpc, log_handler=logging.NullHandler())
        self._address = daprd.grpc
        self._rested = rested
        self._executions = executions
        self._sidecar = sidecar
        self._watchdog = watchdog or Watchdog()
        self._step_seconds = step_seconds
        self._grace_seconds = grace_seconds
        self.turns = Turns(self._execute_orchestrator, self._watchdog)
        self._free = asyncio.Semaphore(activities_at_once)
        self.running = 0
        self.waiting = 0
        self.connected = False  # the stream is open, and its end not seen
        self.moved_at = time.monotonic()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._metadata = daprd.metadata

    def stop(self) -> None:
        """Takes no new work, waits for what runs, ends the loop's thread."""
        self._shutdown.set()
        if self._loop is not None and self._runLoop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._runLoop.join()
        self._is_running = False
        self._async_worker_manager.shutdown()

    async def _async_run_loop(self) -> None:
        """What the SDK's `start` runs in a thread: connects until told to stop."""
        self._loop = asyncio.get_running_loop()
        beating = asyncio.ensure_future(self._beat())
        self._watchdog.watch()
        try:
            while not self._stopping.is_set():
                try:
                    await self._connected()
                except grpc.aio.AioRpcError as error:
                    log.warning("sidecar %s: %s; connecting again", self._address, error.code().name)
                if not self._stopping.is_set():
                    await self._executions.lose()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _RECONNECT_SECONDS)
        finally:
            self._watchdog.rest()
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            self.moved_at = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)

    async def _connected(self) -> None:
        """One connection: reads work items until it breaks or the worker stops, then lets running ones deliver."""
        # A pool of its own: connections with equal options would share the back-off of a lost one.
        options = (*shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = stubs.TaskHubSidecarServiceStub(channel)
            await stub.Hello(empty_pb2.Empty(), metadata=self._metadata, timeout=_CALL_SECONDS)
            stream = stub.GetWorkItems(protos.GetWorkItemsRequest(), metadata=self._metadata)
            self._stream_ready.set()
            self.connected = True
            connecting = asyncio.ensure_future(self._sidecar.ensure_connected())
            reading = asyncio.ensure_future(self._read(stub, stream))
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            connecting.cancel()
            self.connected = False
            if reading.done():
                reading.result()
            else:
                await self._drain()
                stream.cancel()

    async def _drain(self) -> None:
        """The stream stays open meanwhile: the sidecar takes no result from a worker that has hung up."""
        if self._running:
            _, left = await asyncio.wait(self._running, timeout=self._grace_seconds)
            log.info("stopped; %d running steps are left to another worker", len(left))

    async def _read(self, stub: Any, stream: Any) -> None:
        async for item in stream:
            if self._stopping.is_set():
                continue  # handed out again as soon as this worker hangs up
            match item.WhichOneof("request"):
                case "workflowRequest":
                    self._begin(self._turn(stub, item))
                case "activityRequest":
                    self._begin(self._activity(stub, item))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _turn(self, stub: Any, item: Any) -> None:
        """One turn of a workflow: the SDK replays and answers; only the bound and the delivery are ours."""
        response, request = self.turns.answer(item), item.workflowRequest
        if await self._deliver(stub.CompleteOrchestratorTask, response, request.instanceId):
            standing = turns.standing_after(request, response)
            if standing is not None:
                self._rested(request.instanceId, standing)

    async def _activity(self, stub: Any, item: Any) -> None:
        """One execution. It lasts until its result is delivered: a worker that died before would have lost it."""
        request = item.activityRequest
        instance_id = request.workflowInstance.instanceId
        attempt = StepAttempt(instance_id, request.taskExecutionId, request.taskId, request.name)
        async with self._slot():
            try:
                async with self._executions.begun(attempt) as known:
                    if known is None:
                        response = await self._worked(request, item.completionToken)
                    else:
                        done = request, instance_id, known, item.completionToken
                        response = self._build_activity_result_response(*done)
                    there = await self._deliver(stub.CompleteActivityTask, response, instance_id)
                    if not (there or self._stopping.is_set()):
                        await self._executions.lose(attempt)  # it ends now: whoever looks later finds it no more
                return
            except Exception as error:  # set aside, or not written down: then the workflow tries again later
                failure = trouble(error) or error
        response = self._failed(request, failure, item.completionToken)
        await self._deliver(stub.CompleteActivityTask, response, instance_id)

    async def _worked(self, request: Any, token: str) -> Any:
        """What came of it, as the sidecar wants to be told."""
        instance_id = request.workflowInstance.instanceId
        work = self._activity_executor.execute_async(
            self._registry.get_activity(request.name),
            instance_id,
            request.name,
            request.taskId,
            request.input.value,
            request.taskExecutionId,
        )
        try:
            async with asyncio.timeout(self._step_seconds) as limit:
                result = await self._watchdog.drive(work)
            return self._build_activity_result_response(request, instance_id, result, token)
        except Exception as error:
            overdue = isinstance(error, Overdue) or limit.expired()
            failure = self._overdue(instance_id, request.name, error) if overdue else error
            return self._failed(request, failure, token)

    def _failed(self, request: Any, error: Exception, token: str) -> Any:
        return protos.ActivityResponse(
            instanceId=request.workflowInstance.instanceId,
            taskId=request.taskId,
            failureDetails=failure_details(error),
            completionToken=token,
        )

    def _overdue(self, instance_id: str, step: str, error: Exception) -> StepOverdue:
        """What the workflow is told of a step that did not come back: it is not tried again, and its task parks."""
        words = str(error) or f"it did not come back within {self._step_seconds:.0f} s"
        log.error("task %s: step %s is ended: %s", instance_id, step, words)
        return StepOverdue(instance_id, step, words)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the activities that may run at once."""
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()

    async def _deliver(self, method: Any, response: Any, instance_id: str) -> bool:
        """Hands a result to the sidecar; what it does not take is handed out again. False when it is gone.

        A sidecar that is slow, or stands still, is handed it again: it waits for this result, and refuses a second."""
        while True:
            try:
                await method(response, metadata=self._metadata, timeout=_CALL_SECONDS)
                return True
            except (grpc.aio.AioRpcError, asyncio.CancelledError, grpc.aio.UsageError) as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                reason = code.name if code else type(error).__name__
                if code is grpc.StatusCode.DEADLINE_EXCEEDED and not self._stopping.is_set():
                    log.warning("task %s: the sidecar takes a result slowly; it is handed over again", instance_id)
                    continue
                log.warning("task %s: a result was not delivered (%s); the step is executed again", instance_id, reason)
                return code not in (None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
