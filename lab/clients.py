"""HTTP clients of the lab: the agent's API as a customer uses it, and the sandbox's controls and books.

Benchmarks send their load without these clients, from one event loop (`lab/bench/load.py`): a thread for each request
would use more CPU time than the product that is measured.
"""

from __future__ import annotations

import itertools
from typing import Any

import httpx

from app.domain.models import Ticket
from app.tasks.access import read_local_token
from runtime.stack import Stack

_AGENT_SECONDS = 20.0
_SANDBOX_SECONDS = 60.0


class AgentApi:
    """The agent's API, parts of which may be down: a failed request returns None or False and raises nothing.

    With several workers, requests go to them in turn, as from a load balancer without health checks.
    """

    def __init__(self, token: str, *urls: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._clients = [
            httpx.Client(base_url=url, headers=headers, timeout=_AGENT_SECONDS, trust_env=False) for url in urls
        ]
        self._turns = itertools.cycle(self._clients)

    @classmethod
    def of(cls, stack: Stack) -> AgentApi:
        """The API of all workers of a running stack, with the stack's own token."""
        return cls(read_local_token(stack.state / "token"), *stack.web_urls)

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def submit(self, ticket: Ticket) -> bool:
        """Submits a ticket; True if the agent accepted it."""
        return self._request("POST", "/tasks", ticket.model_dump(mode="json")) is not None

    def view(self, task_id: str) -> dict[str, Any] | None:
        """The task as GET /tasks/{id} returns it, or None."""
        return self._request("GET", f"/tasks/{task_id}")

    def reject(self, task_id: str) -> bool:
        """Rejects the refund of a task that waits for a person; True if the agent accepted the decision."""
        return self._request("POST", f"/tasks/{task_id}/reject") is not None

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        try:
            answer = next(self._turns).request(method, path, json=body)
        except httpx.TransportError:
            return None
        return dict(answer.json()) if answer.is_success else None


class SandboxApi:
    """The sandbox's controls: latency, faults, the model's bill and the systems' books. Raises httpx.HTTPError.

    Each request opens its own connection, since the sandbox may have been restarted in between.
    """

    def __init__(self, model_url: str, systems_url: str) -> None:
        self._model_url, self._systems_url = model_url, systems_url

    @classmethod
    def of(cls, stack: Stack) -> SandboxApi:
        """The sandbox of a running stack."""
        return cls(stack.model_url, stack.systems_url)

    def set_latency(self, seconds: float) -> None:
        """Sets how long each model call takes."""
        self._ask("PUT", f"{self._model_url}/latency", {"seconds": seconds})

    def bill(self) -> tuple[dict[str, Any], ...]:
        """The bill: one row for each request that reached the model, in order."""
        return tuple(self._read(f"{self._model_url}/bill")["rows"])

    def bill_total(self) -> dict[str, int]:
        """The sums of the bill: requests and tokens."""
        total = self._read(f"{self._model_url}/bill/total")
        return {key: int(value) for key, value in total.items() if isinstance(value, int)}

    def book(self, name: str) -> tuple[dict[str, Any], ...]:
        """The rows of one of the systems' books, oldest first."""
        return tuple(self._read(f"{self._systems_url}/books/{name}")["rows"])

    def put_fault(self, **fault: Any) -> None:
        """Puts a fault on a target; the fields are those of `sandbox.faults.Fault`."""
        self._ask("PUT", f"{self._model_url}/faults", fault)

    def faults(self) -> tuple[dict[str, Any], ...]:
        """All faults; `fired` counts how often each was applied."""
        return tuple(self._read(f"{self._model_url}/faults")["faults"])

    def clear_faults(self) -> None:
        """Removes all faults. A request that a fault already holds stays held until its sender disconnects."""
        self._ask("DELETE", f"{self._model_url}/faults")

    def _read(self, url: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask("GET", url).json()
        return answer

    def _ask(self, method: str, url: str, body: dict[str, Any] | None = None) -> httpx.Response:
        answer = httpx.request(method, url, json=body, timeout=_SANDBOX_SECONDS, trust_env=False)
        return answer.raise_for_status()
