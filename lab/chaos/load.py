"""Load as a customer makes it: tickets over HTTP at their time, again until the agent has them, and a person's word."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from app.domain.models import Refund, Ticket
from lab.clients import AgentApi
from lab.tickets import CURRENCY, OUTCOME, PRICE, STEPS, Shape, make_ticket

# The tickets of the chaos test, and how each must end, whatever is killed meanwhile.
#
# Each has a customer and an order of its own, which the sandbox's books know without being seeded: what one ticket
# costs does not depend on which others were worked before it.

_SHARES = {Shape.REFUND: 60, Shape.QUESTION: 30, Shape.GREEDY: 10}


@dataclass(frozen=True)
class Expected:
    """A ticket with its end: the activities that are worked once each, the outcome, and the money, if any goes back."""

    ticket: Ticket
    shape: Shape
    refund: Refund | None

    @property
    def task_id(self) -> str:
        """The task's."""
        return self.ticket.task_id

    @property
    def outcome(self) -> str:
        """What the case is closed with."""
        return OUTCOME[self.shape]

    @property
    def steps(self) -> tuple[str, ...]:
        """The activities, by name; one that is worked twice stands twice."""
        return STEPS[self.shape]


def make_tickets(seed: int, count: int) -> tuple[Expected, ...]:
    """That many tickets, mixed by the seed, each shape at least once."""
    chance = random.Random(seed)
    rest = chance.choices(list(_SHARES), list(_SHARES.values()), k=max(0, count - len(_SHARES)))
    shapes = [*_SHARES, *rest][:count]
    chance.shuffle(shapes)
    return tuple(_expected(shape, number) for number, shape in enumerate(shapes, 1))


def _expected(shape: Shape, number: int) -> Expected:
    ticket = make_ticket(shape, number)
    refund = None
    if shape is Shape.REFUND and ticket.order_id is not None:
        refund = Refund(order_id=ticket.order_id, amount=PRICE, currency=CURRENCY)
    return Expected(ticket, shape, refund)


_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_SENDERS = 8


class Load:
    """Sends each ticket at its time over `seconds`, evenly, and rejects what waits for a person."""

    def __init__(self, api: AgentApi, tickets: Sequence[Expected], seconds: float) -> None:
        self._api = api
        self._due = [(number * seconds / len(tickets), each) for number, each in enumerate(tickets)]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._accepted: set[str] = set()
        self._undecided = {ticket.task_id for ticket in tickets if ticket.shape is Shape.GREEDY}
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
