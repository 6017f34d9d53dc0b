"""A sidecar that takes connections and never answers is not waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import policy
from app.dapr.daprd import Daprd
from app.domain.deadline import within
from app.domain.errors import Unreachable
from app.domain.models import Decision
from app.tasks.workflow_client import Silence, WorkflowClient, connect
from app.workflow.steps import TaskInput

RULES = policy.load(Path("config/policy.yaml"))
TASK = TaskInput(tenant="acme", ticket_id="T-1", customer_id="C-1", order_id=None, rules=RULES)
CALLS: dict[str, Callable[[WorkflowClient], Any]] = {
    "start": lambda runs: runs.start(TASK),
    "get": lambda runs: runs.get("acme:T-1"),
    "decide": lambda runs: runs.decide("acme:T-1", Decision(verdict="reject", by="kim")),
    "unpark": lambda runs: runs.unpark("acme:T-1"),
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
    with pytest.raises(Silence, match="whether it has done what was asked is not known"), within(0.3):
        CALLS[name](runs)
    with pytest.raises(Unreachable), within(0.3):
        CALLS[name](runs)
    assert time.monotonic() - begun < 30


def test_a_call_that_nobody_bounds_is_bounded_all_the_same(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.workflow_client._READ_SECONDS", 0.2)
    with pytest.raises(Silence):
        WorkflowClient(connect(daprd(silent))).get("acme:T-1")
