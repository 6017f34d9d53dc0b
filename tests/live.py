"""Access to a running stack for tests: submits tickets, injects faults, reads tasks, books, bill and histories."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml
from dapr.clients.grpc.interceptors import DaprClientInterceptor
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos

from app.dapr.daprd import GRPC_WITHOUT_PROXY, Daprd
from app.domain.errors import TaskNotFound
from app.domain.models import TaskStatus
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import CallRecord
from runtime.stack import Stack

SETTLED = ("completed", "waiting")
_POLL_SECONDS = 0.02
# The same policies with shorter times, so that tests need not wait for minutes. A model call still has six seconds, so
# that a busy machine does not cause time-outs that the test does not intend.
_QUICK_TIMES = {"120s": "12s", "60s": "6s", "30s": "2s", "15s": "4s", "10s": "3s", "5s": "3s"}
_QUICK_RETRIES = {"first_seconds": 0.5, "max_seconds": 2, "attempts": 100, "billed_attempts": 100}


def make_stack(folder: Path, **options: Any) -> Stack:
    """A stack with short time-outs and pauses. It is not started."""
    stack = Stack(folder, **options)
    for file in (stack.folder / "resiliency").glob("*.yaml"):
        file.write_text(re.sub(r"\b(\d+s)\b", lambda match: _QUICK_TIMES.get(match[1], match[1]), file.read_text()))
    policy = stack.folder / "config" / "policy.yaml"
    rules = yaml.safe_load(policy.read_text())
    policy.write_text(yaml.safe_dump(rules | {"retries": _QUICK_RETRIES}))
    stack.worker_env["REFUND_AGENT_POLICY_FILE"] = str(policy)
    return stack


def repeat_model_calls(stack: Stack) -> Stack:
    """Configures the sidecar of a stack that is not started to repeat a model call once (see docs/operations.md)."""
    file = stack.folder / "resiliency" / "llm.yaml"
    resource = yaml.safe_load(file.read_text())
    policy = {"policy": "constant", "duration": "1s", "maxRetries": 1}
    resource["spec"]["policies"]["retries"] = {"llm": policy}
    resource["spec"]["targets"]["components"]["llm"]["outbound"]["retry"] = "llm"
    file.write_text(yaml.safe_dump(resource))
    return stack


def daprd_of(stack: Stack) -> Daprd:
    """The addresses and token of a stack's sidecar."""
    return Daprd(stack.dapr_url, stack.dapr_grpc, stack.api_token)


@contextmanager
def sidecar_channel(stack: Stack) -> Iterator[grpc.Channel]:
    """A gRPC channel to a stack's sidecar, with its token."""
    with grpc.insecure_channel(stack.dapr_grpc, options=[GRPC_WITHOUT_PROXY]) as channel:
        yield grpc.intercept_channel(channel, DaprClientInterceptor(list(daprd_of(stack).metadata)))


def until(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 60.0) -> Any:
    """Polls until the condition is truthy and returns its value. Fails at the deadline with the text `what`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        in_time = time.monotonic() < deadline
        assert in_time, f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(_POLL_SECONDS)
    return value


def recorded(records: LedgerQueries, task_id: str, *statuses: TaskStatus, seconds: float = 60.0) -> TaskRecord:
    """Waits until the record has one of the statuses, and returns it."""

    def find() -> TaskRecord | None:
        try:
            record = records.record(task_id)
        except TaskNotFound:
            return None
        return record if record.status in statuses else None

    record = until(find, f"{task_id} is recorded as {statuses}", seconds)
    assert isinstance(record, TaskRecord)
    return record


def _events(stub: Any, task_id: str) -> Any:
    """The events of a task's history; None while the sidecar saves the run, since it reads the run's rows one by one,
    and before an accepted ticket's task is started."""
    try:
        return stub.GetInstanceHistory(protos.GetInstanceHistoryRequest(instanceId=task_id)).events
    except grpc.RpcError as error:
        if not re.search("missing from state store|not found", str(error.details())):
            raise
        return None


class Live:
    """A started stack with the calls that tests make."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        token = (stack.state / "token").read_text().strip()
        self.web = httpx.Client(
            base_url=stack.web_url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )
        self.outside = httpx.Client(timeout=60, trust_env=False)

    def close(self) -> None:
        """Closes the connections."""
        self.web.close()
        self.outside.close()

    @contextmanager
    def records(self) -> Iterator[LedgerQueries]:
        """The product's ledger on SQLite, as a reader."""
        engine = database.connect(f"sqlite:///{self.stack.state / 'ledger.sqlite'}")
        try:
            yield LedgerQueries(engine)
        finally:
            engine.dispose()

    def calls(self) -> tuple[CallRecord, ...]:
        """Every model call in its journal."""
        with self.records() as records:
            return records.calls()

    def submit(self, ticket: dict[str, Any]) -> str:
        """Sends a ticket, repeatedly if the sidecar restarts, and returns its task id."""

        def accepted() -> dict[str, Any] | None:
            response = self.web.post("/tasks", json=ticket)
            if response.status_code == 503:  # the sidecar restarts
                return None
            assert response.status_code in (200, 201, 202), response.text
            return dict(response.json())

        return str(until(accepted, f"{ticket['ticket_id']} is accepted")["task_id"])

    def view(self, task_id: str) -> dict[str, Any]:
        """A task as the API shows it."""
        response = self.web.get(f"/tasks/{task_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait(self, task_id: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
        """Waits until a task is in one of the statuses (completed or waiting by default)."""
        wanted = statuses or SETTLED

        def reached() -> dict[str, Any] | None:
            response = self.web.get(f"/tasks/{task_id}")
            if response.status_code == 503:  # the sidecar restarts
                return None
            assert response.status_code == 200, response.text
            view: dict[str, Any] = response.json()
            return view if view["status"] in wanted else None

        return dict(until(reached, lambda: f"{task_id} {' or '.join(wanted)}; it is {self.view(task_id)}", seconds))

    def wait_all(self, task_ids: Iterable[str], *statuses: str, seconds: float = 120.0) -> list[dict[str, Any]]:
        """Waits for many tasks with one deadline."""
        deadline = time.monotonic() + seconds
        return [self.wait(task_id, *statuses, seconds=max(1.0, deadline - time.monotonic())) for task_id in task_ids]

    def rows(self, book: str) -> list[dict[str, Any]]:
        """One of the sandbox's books: refunds, notifications, cases."""
        return list(self.outside.get(f"{self.stack.systems_url}/books/{book}").raise_for_status().json()["rows"])

    def tell_sidecar(self, task_id: str, verb: str, payload: str = "") -> int:
        """Speaks to Dapr's workflow API past the agent: `pause`, `raiseEvent/decision`... Returns the status."""
        url = f"{self.stack.dapr_url}/v1.0/workflows/dapr/{task_id}/{verb}"
        headers = daprd_of(self.stack).headers
        return self.outside.post(url, content=payload.encode(), headers=headers).status_code

    def bill(self) -> list[dict[str, Any]]:
        """Every request that reached the model server."""
        return list(self.outside.get(f"{self.stack.model_url}/bill").raise_for_status().json()["rows"])

    def fault(self, target: str, kind: str, **details: Any) -> None:
        """Orders a fault for the model or an internal system."""
        body = {"target": target, "kind": kind, **details}
        self.outside.put(f"{self.stack.model_url}/faults", json=body).raise_for_status()

    def heal(self) -> None:
        """Ends all faults."""
        self.outside.delete(f"{self.stack.model_url}/faults").raise_for_status()

    def fired(self, target: str) -> int:
        """The number of times that the faults of a target fired."""
        faults = self.outside.get(f"{self.stack.model_url}/faults").raise_for_status().json()["faults"]
        return sum(fault["fired"] for fault in faults if fault["target"] == target)

    def history(self, task_id: str) -> list[Any]:
        """Dapr's history of a task, whose signatures daprd verifies when it reads it."""
        with sidecar_channel(self.stack) as channel:
            stub = stubs.TaskHubSidecarServiceStub(channel)
            return list(until(lambda: _events(stub, task_id), f"{task_id} has a history"))

    def completed_steps(self, task_id: str) -> Counter[str]:
        """The number of completions of each activity of a task, by name."""
        events = self.history(task_id)
        names = {event.eventId: event.taskScheduled.name for event in events if event.HasField("taskScheduled")}
        done = [event.taskCompleted.taskScheduledId for event in events if event.HasField("taskCompleted")]
        return Counter(names[step] for step in done)
