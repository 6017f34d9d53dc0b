"""The load: every ticket at its time, again until the agent has it; a person rejects what waits, once it waits."""

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
    """An agent that is away for each ticket's first tries, and lets greedy ones wait until they are rejected."""

    def __init__(self, away: int = 0) -> None:
        self._away = away
        self.tries = Counter[str]()
        self.first_at: dict[str, float] = {}
        self.rejected = Counter[str]()
        self.looks, self.ended_looks = Counter[str](), Counter[str]()
        self._lock = threading.Lock()

    def submit(self, ticket: Ticket) -> bool:
        """Taken after so many tries."""
        with self._lock:
            self.first_at.setdefault(ticket.task_id, time.monotonic())
            self.tries[ticket.task_id] += 1
            return self.tries[ticket.task_id] > self._away

    def view(self, task_id: str) -> dict[str, Any] | None:
        """Running at first, then waiting until it is rejected twice: the first decision is lost."""
        self.looks[task_id] += 1
        if self.rejected[task_id] > 1:
            self.ended_looks[task_id] += 1
            return {"status": "completed"}
        return {"status": "running" if self.looks[task_id] < 3 else "waiting"}

    def reject(self, task_id: str) -> bool:
        """Counted; a task that does not wait takes no decision."""
        assert self.looks[task_id] >= 3
        self.rejected[task_id] += 1
        return self.rejected[task_id] > 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of some milliseconds."""
    monkeypatch.setattr(load, "_AGAIN_SECONDS", 0.005)
    monkeypatch.setattr(load, "_LOOK_SECONDS", 0.005)


@contextmanager
def running(api: AgentApi, seconds: float) -> Iterator[Load]:
    """A load under way."""
    under_way = Load(api, TICKETS, seconds)
    under_way.start()
    try:
        yield under_way
    finally:
        under_way.stop()


def until(condition: Callable[[], bool]) -> None:
    """Polls."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_every_ticket_is_sent_again_until_the_agent_has_it() -> None:
    api = FakeApi(away=3)
    with running(api, 0.05) as under_way:
        until(lambda: len(under_way.accepted) == len(TICKETS))
    assert set(api.tries.values()) == {4}
    assert under_way.accepted == {each.task_id for each in TICKETS}


def test_tickets_come_one_after_another_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_SENDERS", 1)  # two that are late may overtake each other
    api = FakeApi()
    begun = time.monotonic()
    with running(api, 0.6) as under_way:
        until(lambda: len(under_way.accepted) == len(TICKETS))
    times = [api.first_at[each.task_id] - begun for each in TICKETS]
    assert times == sorted(times)
    assert all(at >= 0.6 * place / len(TICKETS) - 0.01 for place, at in enumerate(times))


def test_what_is_not_accepted_is_not_said_to_be() -> None:
    api = FakeApi(away=10_000)
    with running(api, 0.01) as under_way:
        until(lambda: api.tries.total() > 20)
    assert under_way.accepted == frozenset()


def test_only_what_waits_is_rejected_and_until_it_has_ended() -> None:
    api = FakeApi()
    greedy = {each.task_id for each in TICKETS if each.shape is Shape.GREEDY}
    with running(api, 0.01):
        until(lambda: all(api.ended_looks[task_id] for task_id in greedy))
        time.sleep(0.05)
    assert dict(api.rejected) == dict.fromkeys(greedy, 2)
    assert set(api.ended_looks.values()) == {1}, "what has ended is looked at no more"
