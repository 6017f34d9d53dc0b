"""Load as a customer makes it: tickets over HTTP at their time, again until the agent has them, and a person's word."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from app.domain.models import Ticket
from lab.chaos.tickets import Expected, Kind

_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_SENDERS = 8
_TIMEOUT_SECONDS = 20.0


class Api:
    """The agent's API while anything of it may be away: what does not answer is None, never an error. Of several
    workers each is asked in its turn, as by a load balancer that knows nothing of them."""

    def __init__(self, token: str, *urls: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._clients = [
            httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False) for url in urls
        ]
        self._turns = itertools.cycle(self._clients)

    def close(self) -> None:
        """Ends the connections."""
        for client in self._clients:
            client.close()

    def submit(self, ticket: Ticket) -> bool:
        """Whether the agent says that it has the ticket."""
        return self._ask("POST", "/tasks", ticket.model_dump(mode="json")) is not None

    def view(self, task_id: str) -> dict[str, Any] | None:
        """A task, as the API shows it."""
        return self._ask("GET", f"/tasks/{task_id}")

    def reject(self, task_id: str) -> bool:
        """Whether the decision was taken."""
        return self._ask("POST", f"/tasks/{task_id}/reject") is not None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        try:
            answer = next(self._turns).request(method, path, json=body)
        except httpx.TransportError:
            return None
        return dict(answer.json()) if answer.is_success else None


class Load:
    """Sends each ticket at its time over `seconds`, evenly, and rejects what waits for a person."""

    def __init__(self, api: Api, tickets: Sequence[Expected], seconds: float) -> None:
        self._api = api
        self._due = [(number * seconds / len(tickets), each) for number, each in enumerate(tickets)]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._accepted: set[str] = set()
        self._undecided = {ticket.task_id for ticket in tickets if ticket.kind is Kind.GREEDY}
        self._pool = ThreadPoolExecutor(_SENDERS + 1, thread_name_prefix="load")
        self._begun = 0.0

    @property
    def accepted(self) -> frozenset[str]:
        """The tasks that the agent has said it has."""
        with self._lock:
            return frozenset(self._accepted)

    def start(self) -> None:
        """Begins."""
        self._begun = time.monotonic()
        waiting = iter(self._due)
        for _ in range(_SENDERS):
            self._pool.submit(self._send, waiting)
        self._pool.submit(self._decide)

    def stop(self) -> None:
        """Sends and decides nothing more."""
        self._stop.set()
        self._pool.shutdown()

    def _send(self, waiting: Any) -> None:
        while True:
            with self._lock:
                due, each = next(waiting, (0.0, None))
            if each is None or self._stop.wait(max(0.0, self._begun + due - time.monotonic())):
                return
            while not self._api.submit(each.ticket):
                if self._stop.wait(_AGAIN_SECONDS):
                    return
            with self._lock:
                self._accepted.add(each.task_id)

    def _decide(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            for task_id in sorted(self._undecided & self.accepted):
                view = self._api.view(task_id)
                if view is not None and view["status"] == "waiting":
                    self._api.reject(task_id)
                elif view is not None and view["status"] == "completed":
                    self._undecided.discard(task_id)
