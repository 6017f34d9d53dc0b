"""What a worker notes of results that its sidecar does not take."""

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
    """Hands out one step and does not take its result."""

    def __init__(self, word: grpc.StatusCode | None) -> None:
        self._word = word
        self.told = threading.Event()
        self.over = threading.Event()

    def Hello(self, request: Any, context: Any) -> Any:
        """As daprd."""
        return empty_pb2.Empty()

    def GetWorkItems(self, request: Any, context: Any) -> Iterator[Any]:
        """One step, and then nothing."""
        item = protos.WorkItem()
        item.activityRequest.name = "stage"
        item.activityRequest.taskExecutionId = "e-1"
        item.activityRequest.taskId = 3
        item.activityRequest.workflowInstance.instanceId = "acme:T-1"
        if not self.told.is_set():
            yield item
        self.over.wait(60)

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:
        """Says its word."""
        self.result = request.result.value
        self.told.set()
        if self._word is not None:
            context.abort(self._word, "no")
        return protos.CompleteTaskResponse()


class Noted:
    """Executions that remember what was lost, and when one was over."""

    def __init__(self, known: str | None = None) -> None:
        self.known = known
        self.lost: list[StepAttempt | None] = []
        self.ended = threading.Event()

    @asynccontextmanager
    async def start(self, attempt: StepAttempt) -> AsyncIterator[str | None]:
        """Around the work."""
        yield self.known
        self.ended.set()

    async def lose(self, only: StepAttempt | None = None) -> None:
        """Remembers it."""
        self.lost.append(only)


class Well:
    """A sidecar that counts its workers."""

    async def ensure_connected(self) -> None:
        """At once."""


async def stage(context: Any, question: Any) -> str:
    """The step."""
    return "done"


@pytest.mark.parametrize(
    ("word", "lost"), [(GONE, [StepAttempt("acme:T-1", "e-1", 3, "stage")]), (REFUSES, []), (None, [])]
)
def test_a_result_that_a_sidecar_no_longer_takes_is_noted_as_lost(
    word: grpc.StatusCode | None, lost: list[StepAttempt]
) -> None:
    noted = Noted()
    worked(Sidecar(word), noted)
    assert noted.lost == lost


def worked(sidecar: Sidecar, noted: Noted) -> Sidecar:
    """The sidecar, after a worker has had its step."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    stubs.add_TaskHubSidecarServiceServicer_to_server(sidecar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    asyncio.run(until_noted(port, sidecar, noted))
    server.stop(None)
    return sidecar


@pytest.mark.parametrize(("known", "result"), [(None, '"done"'), ('"as before"', '"as before"')])
def test_a_step_whose_result_is_in_the_history_is_not_worked_again(known: str | None, result: str) -> None:
    assert worked(Sidecar(None), Noted(known)).result == result


async def until_noted(port: int, sidecar: Sidecar, noted: Noted) -> None:
    """A worker's loop, until the step is over."""
    daprd = Daprd("", f"127.0.0.1:{port}", "")
    worker = EventLoopWorker(daprd, 10, lambda *_: None, noted, Well())  # type: ignore[arg-type]
    worker._registry.add_named_activity("stage", stage)
    running = asyncio.ensure_future(worker._async_run_loop())
    assert await asyncio.to_thread(noted.ended.wait, 60)
    worker._stopping.set()
    sidecar.over.set()
    await running
