"""An endless turn and an endless step: others continue, and both are answered with the reason."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from dapr.ext.workflow._durabletask.internal import helpers, protos
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.task import NonDeterminismError
from google.protobuf import empty_pb2

from app.dapr.daprd import Daprd
from app.domain.models import Progress, TaskStatus
from app.worker.turns import Turns, Watchdog
from app.worker.worker import EventLoopWorker
from tests.worker.test_worker import Noted, Well

PATIENCE = {"looks": 5, "pause_seconds": 0.02}


def workflow(context: Any, _input: Any) -> Generator[Any, Any, str]:
    """A workflow that is endless for one instance."""
    while context.instance_id == "acme:endless":
        pass
    yield context.wait_for_external_event("never")
    return "done"


async def endless(_context: Any, _question: Any) -> None:
    """A step that holds the loop."""
    while True:
        pass


async def idle(_context: Any, _question: Any) -> None:
    """A step that waits forever."""
    await asyncio.Event().wait()


async def healthy(_context: Any, _question: Any) -> str:
    """A step that completes."""
    return "done"


def turn(instance_id: str, *, terminate: bool = False) -> Any:
    """The first turn of an instance, as the sidecar hands it out."""
    item = protos.WorkItem(completionToken=f"token of {instance_id}")
    item.workflowRequest.instanceId = instance_id
    started = item.workflowRequest.newEvents.add(eventId=-1)
    started.executionStarted.name = "w"
    started.router.sourceAppID = "agent"
    if terminate:
        item.workflowRequest.newEvents.add(eventId=-1).executionTerminated.input.value = '{"reason": "it hangs"}'
    return item


def step(name: str) -> Any:
    """An activity of this name, of an instance of the same name."""
    item = protos.WorkItem()
    item.activityRequest.name = name
    item.activityRequest.taskExecutionId = name
    item.activityRequest.workflowInstance.instanceId = f"acme:{name}"
    return item


class Sidecar(stubs.TaskHubSidecarServiceServicer):  # type: ignore[misc]  # generated without types
    """A sidecar that hands out all items at once and keeps the responses."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self.turns: dict[str, Any] = {}
        self.steps: dict[str, Any] = {}
        self.answered = threading.Semaphore(0)
        self.over = threading.Event()

    def Hello(self, request: Any, context: Any) -> Any:
        """Answers as daprd does."""
        return empty_pb2.Empty()

    def GetWorkItems(self, request: Any, context: Any) -> Iterator[Any]:
        """Hands out all items."""
        yield from self._items
        self.over.wait(60)

    def CompleteOrchestratorTask(self, request: Any, context: Any) -> Any:
        """Keeps the response."""
        self.turns[request.instanceId] = request
        self.answered.release()
        return protos.CompleteTaskResponse()

    def CompleteActivityTask(self, request: Any, context: Any) -> Any:
        """Keeps the response."""
        self.steps[request.instanceId] = request
        self.answered.release()
        return protos.CompleteTaskResponse()


async def run_worker(port: int, sidecar: Sidecar, count: int) -> EventLoopWorker:
    """Runs a worker until `count` items are answered."""
    worker = EventLoopWorker(
        Daprd("", f"127.0.0.1:{port}", ""),
        10,
        lambda *_: None,
        Noted(),  # type: ignore[arg-type]
        Well(),  # type: ignore[arg-type]
        Watchdog(**PATIENCE),  # type: ignore[arg-type]
        step_seconds=0.5,
    )
    worker._registry.add_named_orchestrator("w", workflow)
    for activity in (endless, idle, healthy):
        worker._registry.add_named_activity(activity.__name__, activity)
    running = asyncio.ensure_future(worker._async_run_loop())
    for _ in range(count):
        assert await asyncio.to_thread(sidecar.answered.acquire, timeout=60)
    worker._stopping.set()
    sidecar.over.set()
    await running
    return worker


def test_a_turn_and_a_step_that_never_return_do_not_affect_others() -> None:
    items = [turn("acme:endless"), step("endless"), step("idle"), step("healthy"), turn("acme:healthy")]
    sidecar = Sidecar(items)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    stubs.add_TaskHubSidecarServiceServicer_to_server(sidecar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    worker = asyncio.run(run_worker(port, sidecar, len(items)))
    server.stop(None)

    assert worker.turns.set_aside == 1
    assert not sidecar.turns["acme:endless"].actions
    progress = Progress.model_validate_json(sidecar.turns["acme:endless"].customStatus.value)
    assert progress.status is TaskStatus.PARKED
    assert "did not return" in progress.reason
    assert "task resume acme:endless" in progress.reason
    assert [action.WhichOneof("workflowActionType") for action in sidecar.turns["acme:healthy"].actions] == [
        "createTimer"
    ]
    assert sidecar.steps["acme:healthy"].result.value == '"done"'
    for name in ("endless", "idle"):
        failure = sidecar.steps[f"acme:{name}"].failureDetails
        assert failure.errorType == "NonRetryableError", "so the task parks at once"
        assert failure.errorMessage.startswith(f"step_overdue: step {name} is ended: it did not return")


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    """A running watchdog with a short limit."""
    impatient = Watchdog(**PATIENCE)  # type: ignore[arg-type]
    impatient.start()
    yield impatient
    impatient.stop()


class Endless:
    """An SDK whose turns are endless while `ill`; counts the turns."""

    def __init__(self) -> None:
        self.ill = True
        self.turns = 0

    def execute(self, request: Any, stub: Any, token: str) -> None:
        """Executes a turn as the SDK does."""
        self.turns += 1
        while self.ill:
            pass
        stub.CompleteOrchestratorTask(protos.WorkflowResponse(instanceId=request.instanceId, completionToken=token))


def test_a_turn_that_was_set_aside_is_retried_after_a_doubling_pause(watchdog: Watchdog) -> None:
    now, sdk = [0.0], Endless()
    turns = Turns(sdk.execute, watchdog, clock=lambda: now[0])
    counts = []
    for now[0] in (0.0, 59.0, 61.0, 120.0, 180.0, 182.0, 400.0, 423.0):
        assert turns.answer(turn("acme:T-1")).customStatus.value
        counts.append(sdk.turns)
    assert counts == [1, 1, 2, 2, 2, 3, 3, 4], "at first, after 60 s, 120 s, 240 s"
    assert turns.set_aside == 4
    sdk.ill, now[0] = False, 1_000.0
    assert not turns.answer(turn("acme:T-1")).HasField("customStatus"), "the workflow's own answer"
    sdk.ill = True
    turns.answer(turn("acme:T-1"))
    assert sdk.turns == 6, "its last turn returned, so it does not rest any more"


def test_a_task_with_an_endless_turn_can_be_terminated(watchdog: Watchdog) -> None:
    turns = Turns(Endless().execute, watchdog)
    turns.answer(turn("acme:T-1"))
    response = turns.answer(turn("acme:T-1", terminate=True))
    (action,) = response.actions
    assert action.completeWorkflow.workflowStatus == protos.ORCHESTRATION_STATUS_TERMINATED
    assert action.completeWorkflow.result.value == '{"reason": "it hangs"}'
    assert action.router.sourceAppID == "agent"
    assert response.completionToken == "token of acme:T-1"


def answering(failure: type[Exception] | None, *words: str) -> Turns:
    """Turns of a workflow whose code raises this failure, or none."""

    def execute(request: Any, stub: Any, token: str) -> None:
        response = protos.WorkflowResponse(instanceId=request.instanceId, completionToken=token)
        if failure is not None:
            details = helpers.new_failure_details(failure(*words))
            failed = protos.ORCHESTRATION_STATUS_FAILED
            response.actions.append(helpers.new_complete_workflow_action(1, failed, None, details))
        stub.CompleteOrchestratorTask(response)

    return Turns(execute, Watchdog())


@pytest.mark.parametrize(
    ("failure", "words", "said"),
    [
        (NonDeterminismError, "a previous execution", "its code does not fit what this task has done"),
        (KeyError, "ann@example.org", "its code raised KeyError"),
        (ValueError, "ann@example.org", "its code raised ValueError"),
    ],
)
def test_a_turn_whose_code_raises_parks_its_task(
    failure: type[Exception], words: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    item = turn("acme:T-1")
    for patches in (["first"], ["second", "third"]):
        item.workflowRequest.pastEvents.add().workflowStarted.version.patches.extend(patches)
    turns = answering(failure, words)
    response = turns.answer(item)
    assert not response.actions
    progress = Progress.model_validate_json(response.customStatus.value)
    assert progress.status is TaskStatus.PARKED
    assert said in progress.reason
    assert list(response.version.patches) == ["first", "second", "third"], "or daprd holds the task itself"
    assert turns.broken == 1
    assert "acme:T-1" in caplog.text
    assert "example.org" not in caplog.text + response.customStatus.value

    item.workflowRequest.newEvents.add().executionTerminated.input.value = '"enough"'
    assert turns.answer(item).actions[0].completeWorkflow.workflowStatus == protos.ORCHESTRATION_STATUS_TERMINATED


def test_a_correct_turn_keeps_the_workflows_own_answer() -> None:
    response = answering(None).answer(turn("acme:T-1"))
    assert not response.HasField("customStatus")
    assert not response.HasField("version")
