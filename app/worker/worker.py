"""The workflow worker: receives work items from the sidecar, runs turns and activities, and returns their results.

All of it runs on one event loop. The SDK's own loop passes each work item through three threads and two queues, which
took more than half of the worker's CPU time under load. Only that loop is replaced: registration, replay and execution
are the SDK's. A worker that is told to stop takes no new work and lets running activities deliver their results.

Every wait is bounded: the watchdog watches turns and each stretch of a step between two awaits, and a step as a whole
and each call of the sidecar have a time limit.
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

# Called with an instance's id and its new standing after a turn that changed it.
StandingListener = Callable[[str, Standing], None]

# The pause before a lost connection to the sidecar is made again.
_RECONNECT_SECONDS = 0.1
# Time limit of a step. Longer than the time-outs inside a step (app/llm/conversation.py, app/dapr/systems.py).
STEP_SECONDS = 900.0
# Time limit of a call of the sidecar.
_CALL_SECONDS = 30.0
# How often the loop records that it moves.
_BEAT_SECONDS = 1.0
# How long a stopping worker waits for running activities. After that the sidecar hands them to another worker.
GRACE_SECONDS = 8.0


class Worker(WorkflowRuntime):  # type: ignore[misc]  # the SDK ships no types
    """The SDK's runtime with an `EventLoopWorker` in place of its own worker."""

    def __init__(
        self,
        daprd: Daprd,
        activities_at_once: int,
        on_standing: StandingListener,
        executions: Executions,
        sidecar: WorkerConnection,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Creates the worker; `start` connects it. At most `activities_at_once` activities run at a time. After `stop`,
        running activities have `grace_seconds` to deliver."""
        host, _, port = daprd.grpc.rpartition(":")
        sdk_patches.use_token(daprd.token)
        super().__init__(host=host, port=port, logger_options=LoggerOptions(log_handler=logging.NullHandler()))
        sdk_patches.survive_pauses()
        sdk_patches.survive_events()
        sdk_patches.name_steps_by_place()
        self.loop = EventLoopWorker(
            daprd, activities_at_once, on_standing, executions, sidecar, grace_seconds=grace_seconds
        )
        self._WorkflowRuntime__worker = self.loop

    def stop(self) -> None:
        """Takes no new work, and returns when running activities have delivered or their grace period has ended."""
        self.shutdown()


def failure_details(error: Exception) -> protos.TaskFailureDetails:
    """The failure of an activity as Dapr stores it. An error of ours starts with its code, has no stack trace, and its
    type decides whether the SDK retries it (`NOT_RETRIED`)."""
    if not isinstance(error, RefundAgentError):
        return new_failure_details(error)
    kind = type(error).__name__ if error.retryable else NOT_RETRIED
    return protos.TaskFailureDetails(errorType=kind, errorMessage=error.stored_text)


class EventLoopWorker(sdk.TaskHubGrpcWorker):  # type: ignore[misc]  # the SDK ships no types
    """The worker's event loop: reads one stream of work items and runs each item as a coroutine.

    running, waiting: number of activities that run, and that wait for a free place. connected: whether the stream is
    open. moved_at: monotonic time at which the loop last moved.
    """

    def __init__(
        self,
        daprd: Daprd,
        activities_at_once: int,
        on_standing: StandingListener,
        executions: Executions,
        sidecar: WorkerConnection,
        watchdog: Watchdog | None = None,
        step_seconds: float = STEP_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        super().__init__(host_address=daprd.grpc, log_handler=logging.NullHandler())
        self._address = daprd.grpc
        self._on_standing = on_standing
        self._executions = executions
        self._sidecar = sidecar
        self._watchdog = watchdog or Watchdog()
        self._step_seconds = step_seconds
        self._grace_seconds = grace_seconds
        self.turns = Turns(self._execute_orchestrator, self._watchdog)
        self._free = asyncio.Semaphore(activities_at_once)
        self.running = 0
        self.waiting = 0
        self.connected = False
        self.moved_at = time.monotonic()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._metadata = daprd.metadata

    def stop(self) -> None:
        """Takes no new work, waits for running activities, and ends the loop's thread."""
        self._shutdown.set()
        if self._loop is not None and self._runLoop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._runLoop.join()
        self._is_running = False
        self._async_worker_manager.shutdown()

    async def _async_run_loop(self) -> None:
        """Connects, and reconnects after each loss, until told to stop. The SDK's `start` runs this in a thread."""
        self._loop = asyncio.get_running_loop()
        beat = asyncio.ensure_future(self._beat())
        self._watchdog.start()
        try:
            while not self._stopping.is_set():
                try:
                    await self._connect()
                except grpc.aio.AioRpcError as error:
                    log.warning("sidecar %s: %s; reconnecting", self._address, error.code().name)
                if not self._stopping.is_set():
                    await self._executions.lose()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _RECONNECT_SECONDS)
        finally:
            self._watchdog.stop()
            beat.cancel()

    async def _beat(self) -> None:
        while True:
            self.moved_at = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)

    async def _connect(self) -> None:
        """Opens one connection and reads work items until it breaks or the worker stops. In the latter case, waits for
        running activities."""
        # A separate pool, because connections with equal options share their back-off.
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
        """Waits for running turns and activities, with the stream open: the sidecar accepts no result from a worker
        whose stream is closed."""
        if self._running:
            _, unfinished = await asyncio.wait(self._running, timeout=self._grace_seconds)
            log.info("stopped; %d running steps are left to another worker", len(unfinished))

    async def _read(self, stub: Any, stream: Any) -> None:
        async for item in stream:
            if self._stopping.is_set():
                continue  # the sidecar hands it out again as soon as this stream is closed
            match item.WhichOneof("request"):
                case "workflowRequest":
                    self._start_task(self._run_turn(stub, item))
                case "activityRequest":
                    self._start_task(self._run_activity(stub, item))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_turn(self, stub: Any, item: Any) -> None:
        """Runs one turn of a workflow, delivers its answer, and reports a changed standing."""
        response, request = self.turns.answer(item), item.workflowRequest
        if await self._deliver(stub.CompleteOrchestratorTask, response, request.instanceId):
            standing = turns.standing_after(request, response)
            if standing is not None:
                self._on_standing(request.instanceId, standing)

    async def _run_activity(self, stub: Any, item: Any) -> None:
        """Executes one attempt of a step. The execution lasts until its result is delivered, because a worker that dies
        before that loses it."""
        request = item.activityRequest
        instance_id = request.workflowInstance.instanceId
        attempt = StepAttempt(instance_id, request.taskExecutionId, request.taskId, request.name)
        async with self._slot():
            try:
                async with self._executions.start(attempt) as known:
                    if known is None:
                        response = await self._execute_activity(request, item.completionToken)
                    else:
                        response = self._build_activity_result_response(
                            request, instance_id, known, item.completionToken
                        )
                    has_sidecar = await self._deliver(stub.CompleteActivityTask, response, instance_id)
                    if not (has_sidecar or self._stopping.is_set()):
                        await self._executions.lose(attempt)  # now, while the execution is still known as running
                return
            except Exception as error:  # set aside, or its start could not be logged; the workflow may retry it
                failure = trouble(error) or error
        response = self._failure_response(request, failure, item.completionToken)
        await self._deliver(stub.CompleteActivityTask, response, instance_id)

    async def _execute_activity(self, request: Any, token: str) -> Any:
        """Executes an activity within its time limit. Returns the response with its result or failure."""
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
            failure = self._step_overdue(instance_id, request.name, error) if overdue else error
            return self._failure_response(request, failure, token)

    def _failure_response(self, request: Any, error: Exception, token: str) -> Any:
        return protos.ActivityResponse(
            instanceId=request.workflowInstance.instanceId,
            taskId=request.taskId,
            failureDetails=failure_details(error),
            completionToken=token,
        )

    def _step_overdue(self, instance_id: str, step: str, error: Exception) -> StepOverdue:
        """The failure of a step that exceeded its time limit. It is not retried, so its task parks."""
        reason = str(error) or f"it did not return within {self._step_seconds:.0f} s"
        log.error("task %s: step %s is ended: %s", instance_id, step, reason)
        return StepOverdue(instance_id, step, reason)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Waits for one of the places for activities, and holds it."""
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
        """Delivers a result to the sidecar. Returns False if the sidecar is gone.

        If the sidecar does not accept the result, it hands out the work item again. A call that times out is repeated:
        the sidecar still waits for this result, and refuses a second one.
        """
        while True:
            try:
                await method(response, metadata=self._metadata, timeout=_CALL_SECONDS)
                return True
            except (grpc.aio.AioRpcError, asyncio.CancelledError, grpc.aio.UsageError) as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                reason = code.name if code else type(error).__name__
                if code is grpc.StatusCode.DEADLINE_EXCEEDED and not self._stopping.is_set():
                    log.warning(
                        "task %s: the sidecar has not accepted a result within %.0f s; delivering it again",
                        instance_id,
                        _CALL_SECONDS,
                    )
                    continue
                log.warning(
                    "task %s: a result was not delivered (%s); the step will be executed again", instance_id, reason
                )
                return code not in (None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
