"""Results that the sidecar does not accept are logged as lost; known results are returned without an execution."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos
from google.protobuf import empty_pb2

from app.dapr.daprd import Daprd
from app.worker.execution_log import StepAttempt
from app.worker.worker import EventLoopWorker

GONE, REFUSES = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN


class Sidecar(stubs.TaskHubSidecarServiceServicer):  # type: ignore[misc]  # generated without types
    """A sidecar that hands out one step and answers its result with a status, or accepts it (None)."""

    def __init__(self, word: grpc.StatusCode | None) -> None:
        self._word = word
        self.told = threading.Event()
        self.over = threading.Event()

    def Hello(self, request: Any, context: Any) -> Any:
        """Answers as daprd does."""
        return empty_pb2.Empty()

    def GetWorkItems(self, request: Any, context: Any) -> Iterator[Any]:
        """Hands out one step."""
        item = protos.WorkItem()
        item.activityRequest.name = "stage"
        item.activityRequest.taskExecutionId = "e-1"
        item.activityRequest.taskId = 3
        item.activityRequest.workflowInstance.instanceId = "acme:T-1"
        if not self.told.is_set():
            yield item
        self.over.wait(60)

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:
        """Answers with the status."""
        self.result = request.result.value
        self.told.set()
        if self._word is not None:
            context.abort(self._word, "no")
        return protos.CompleteTaskResponse()


class Noted:
    """Executions that record losses and the end of an execution."""

    def __init__(self, known: str | None = None) -> None:
        self.known = known
        self.lost: list[StepAttempt | None] = []
        self.ended = threading.Event()

    @asynccontextmanager
    async def start(self, attempt: StepAttempt) -> AsyncIterator[str | None]:
        """Yields the known result."""
        yield self.known
        self.ended.set()

    async def lose(self, only: StepAttempt | None = None) -> None:
        """Records the loss."""
        self.lost.append(only)


class Well:
    """A sidecar that counts its workers."""

    async def ensure_connected(self) -> None:
        """Returns immediately."""


async def stage(context: Any, question: Any) -> str:
    """A step that completes."""
    return "done"


@pytest.mark.parametrize(
    ("word", "lost"), [(GONE, [StepAttempt("acme:T-1", "e-1", 3, "stage")]), (REFUSES, []), (None, [])]
)
def test_a_result_that_the_gone_sidecar_does_not_accept_is_logged_as_lost(
    word: grpc.StatusCode | None, lost: list[StepAttempt]
) -> None:
    noted = Noted()
    run_worker(Sidecar(word), noted)
    assert noted.lost == lost


def run_worker(sidecar: Sidecar, noted: Noted) -> Sidecar:
    """Runs a worker until the sidecar's step has ended; returns the sidecar."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    stubs.add_TaskHubSidecarServiceServicer_to_server(sidecar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    asyncio.run(run_until_ended(port, sidecar, noted))
    server.stop(None)
    return sidecar


@pytest.mark.parametrize(("known", "result"), [(None, '"done"'), ('"as before"', '"as before"')])
def test_a_step_with_a_result_in_the_history_is_not_executed_again(known: str | None, result: str) -> None:
    assert run_worker(Sidecar(None), Noted(known)).result == result


async def run_until_ended(port: int, sidecar: Sidecar, noted: Noted) -> None:
    """Runs a worker's loop until its step has ended."""
    daprd = Daprd("", f"127.0.0.1:{port}", "")
    worker = EventLoopWorker(daprd, 10, lambda *_: None, noted, Well())  # type: ignore[arg-type]
    worker._registry.add_named_activity("stage", stage)
    running = asyncio.ensure_future(worker._async_run_loop())
    assert await asyncio.to_thread(noted.ended.wait, 60)
    worker._stopping.set()
    sidecar.over.set()
    await running
