"""A sidecar that takes connections and never answers is not waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.config import policy
from app.dapr.daprd import Daprd
from app.dapr.workarounds import NEVER_STARTED, TORN_READ, Workaround, is_needed, parse
from app.domain.deadline import within
from app.domain.errors import HistoryTampered, Unreachable
from app.domain.models import Decision
from app.tasks.workflow_client import Silence, WorkflowClient, connect
from app.workflow.steps import WAKE, TaskInput

RULES = policy.load(Path("config/policy.yaml"))
TASK = TaskInput(tenant="acme", ticket_id="T-1", customer_id="C-1", order_id=None, rules=RULES)
CALLS: dict[str, Callable[[WorkflowClient], Any]] = {
    "start": lambda runs: runs.start(TASK),
    "get": lambda runs: runs.get("acme:T-1"),
    "decide": lambda runs: runs.decide("acme:T-1", Decision(verdict="reject", by="kim")),
    "unpark": lambda runs: runs.unpark("acme:T-1"),
    "begin": lambda runs: runs.begin("acme:T-1"),
    "wake": lambda runs: runs.wake("acme:T-1"),
    "pause": lambda runs: runs.pause("acme:T-1"),
    "resume": lambda runs: runs.resume("acme:T-1"),
    "terminate": lambda runs: runs.terminate("acme:T-1", "why not"),
}


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of somebody who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def daprd(port: int) -> Daprd:
    """A sidecar behind that port."""
    return Daprd(f"http://127.0.0.1:{port}", f"127.0.0.1:{port}", "")


@pytest.mark.parametrize("name", CALLS)
def test_every_call_has_a_deadline(name: str, silent: int) -> None:
    assert set(CALLS) == {each for each in vars(WorkflowClient) if not each.startswith("_")}
    runs = WorkflowClient(connect(daprd(silent)))
    begun = time.monotonic()
    with pytest.raises(Silence, match="it is not known whether the request was carried out"), within(0.3):
        CALLS[name](runs)
    with pytest.raises(Unreachable), within(0.3):
        CALLS[name](runs)
    assert time.monotonic() - begun < 30


def test_a_call_that_nobody_bounds_is_bounded_all_the_same(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.workflow_client._READ_SECONDS", 0.2)
    with pytest.raises(Silence):
        WorkflowClient(connect(daprd(silent))).get("acme:T-1")


class Torn(grpc.RpcError):  # type: ignore[misc]  # gRPC ships no types
    """What daprd says of an instance whose rows are not whole."""

    def details(self) -> str:
        """Its words."""
        return "inbox key 'inbox-000000' declared in metadata but missing from state store"

    def code(self) -> grpc.StatusCode:
        """Its code."""
        return grpc.StatusCode.UNKNOWN


class Asked:
    """The SDK's client: notes what it is asked, and reads nothing whole."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def get_workflow_state(self, _: str) -> None:
        """Fails."""
        self.calls.append("state")
        raise Torn

    def raise_workflow_event(self, _: str, event: str, data: object) -> None:
        """Is taken."""
        self.calls.append(event)


def of_version(version: str) -> tuple[WorkflowClient, Asked]:
    """Runs whose sidecar is of that version."""

    def needs(workaround: Workaround) -> bool:
        assert workaround in (TORN_READ, NEVER_STARTED)
        return is_needed(workaround, parse(version))

    asked = Asked()
    return WorkflowClient(asked, pause=lambda _: None, needs=needs), asked


@pytest.mark.parametrize(("version", "reads"), [("1.18.2", 12), ("1.18.3", 2), ("edge", 12)])
def test_an_instance_that_is_not_whole_is_read_again(version: str, reads: int) -> None:
    runs, asked = of_version(version)
    with pytest.raises(HistoryTampered):
        runs.get("acme:T-1")
    assert asked.calls == ["state"] * reads


@pytest.mark.parametrize(("version", "calls"), [("1.18.3", [WAKE]), ("edge", [WAKE]), ("1.18.4", ["state", "state"])])
def test_a_run_that_was_never_begun_is_woken_or_only_asked_for(version: str, calls: list[str]) -> None:
    runs, asked = of_version(version)
    runs.begin("acme:T-1")
    assert asked.calls == calls
