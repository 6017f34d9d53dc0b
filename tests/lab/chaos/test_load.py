"""The load sends each ticket at its time until it is accepted, and rejects tasks that wait for a person."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.domain.models import Ticket
from lab.chaos import load
from lab.chaos.load import Load, make_tickets
from lab.clients import AgentApi
from lab.tickets import Shape

TICKETS = make_tickets(3, 12)


class FakeApi(AgentApi):
    """An agent that refuses the first `away` tries of each ticket. Greedy tasks wait until they are rejected."""

    def __init__(self, away: int = 0) -> None:
        self._away = away
        self.tries = Counter[str]()
        self.first_at: dict[str, float] = {}
        self.rejected = Counter[str]()
        self.looks, self.ended_looks = Counter[str](), Counter[str]()
        self._lock = threading.Lock()

    def submit(self, ticket: Ticket) -> bool:
        """Accepts the ticket after `away` tries."""
        with self._lock:
            self.first_at.setdefault(ticket.task_id, time.monotonic())
            self.tries[ticket.task_id] += 1
            return self.tries[ticket.task_id] > self._away

    def view(self, task_id: str) -> dict[str, Any] | None:
        """Running at first, then waiting until it is rejected twice, since the first decision is lost."""
        self.looks[task_id] += 1
        if self.rejected[task_id] > 1:
            self.ended_looks[task_id] += 1
            return {"status": "completed"}
        return {"status": "running" if self.looks[task_id] < 3 else "waiting"}

    def reject(self, task_id: str) -> bool:
        """Counts the decision; fails if the task does not wait."""
        assert self.looks[task_id] >= 3
        self.rejected[task_id] += 1
        return self.rejected[task_id] > 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the pauses to a few milliseconds."""
    monkeypatch.setattr(load, "_RETRY_SECONDS", 0.005)
    monkeypatch.setattr(load, "_POLL_SECONDS", 0.005)


@contextmanager
def running(api: AgentApi, seconds: float) -> Iterator[Load]:
    """A running load."""
    current = Load(api, TICKETS, seconds)
    current.start()
    try:
        yield current
    finally:
        current.stop()


def until(condition: Callable[[], bool]) -> None:
    """Polls until the condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_every_ticket_is_sent_until_the_agent_accepts_it() -> None:
    api = FakeApi(away=3)
    with running(api, 0.05) as current:
        until(lambda: len(current.accepted) == len(TICKETS))
    assert set(api.tries.values()) == {4}
    assert current.accepted == {ticket.task_id for ticket in TICKETS}


def test_tickets_come_one_after_another_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_SENDERS", 1)  # several senders may send late tickets out of order
    api = FakeApi()
    started = time.monotonic()
    with running(api, 0.6) as current:
        until(lambda: len(current.accepted) == len(TICKETS))
    times = [api.first_at[ticket.task_id] - started for ticket in TICKETS]
    assert times == sorted(times)
    assert all(at >= 0.6 * place / len(TICKETS) - 0.01 for place, at in enumerate(times))


def test_a_refused_ticket_is_not_listed_as_accepted() -> None:
    api = FakeApi(away=10_000)
    with running(api, 0.01) as current:
        until(lambda: api.tries.total() > 20)
    assert current.accepted == frozenset()


def test_only_waiting_tasks_are_rejected_until_they_have_ended() -> None:
    api = FakeApi()
    greedy = {ticket.task_id for ticket in TICKETS if ticket.shape is Shape.GREEDY}
    with running(api, 0.01):
        until(lambda: all(api.ended_looks[task_id] for task_id in greedy))
        time.sleep(0.05)
    assert dict(api.rejected) == dict.fromkeys(greedy, 2)
    assert set(api.ended_looks.values()) == {1}, "an ended task is not polled again"
