"""The load of the chaos test: tickets over HTTP at fixed times, repeated until accepted, and a person's decisions."""

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

# Percent of the tickets.
_SHARES = {Shape.REFUND: 60, Shape.QUESTION: 30, Shape.GREEDY: 10}


@dataclass(frozen=True)
class Expected:
    """A ticket with its expected result, which must not depend on the faults: steps, outcome, and refund if any."""

    ticket: Ticket
    shape: Shape
    refund: Refund | None

    @property
    def task_id(self) -> str:
        """The id of the ticket's task."""
        return self.ticket.task_id

    @property
    def outcome(self) -> str:
        """The outcome with which the case is closed."""
        return OUTCOME[self.shape]

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the activities, sorted; one that runs twice is listed twice."""
        return STEPS[self.shape]


def make_tickets(seed: int, count: int) -> tuple[Expected, ...]:
    """`count` tickets in an order that the seed determines. With three or more tickets, every shape occurs."""
    chance = random.Random(seed)
    rest = chance.choices(list(_SHARES), list(_SHARES.values()), k=max(0, count - len(_SHARES)))
    shapes = [*_SHARES, *rest][:count]
    chance.shuffle(shapes)
    return tuple(_make_expected(shape, number) for number, shape in enumerate(shapes, 1))


def _make_expected(shape: Shape, number: int) -> Expected:
    ticket = make_ticket(shape, number)
    refund = None
    if shape is Shape.REFUND and ticket.order_id is not None:
        refund = Refund(order_id=ticket.order_id, amount=PRICE, currency=CURRENCY)
    return Expected(ticket, shape, refund)


_RETRY_SECONDS = 0.2
_POLL_SECONDS = 1.0
_SENDERS = 8


class Load:
    """Sends the tickets evenly over `seconds`, and rejects the refunds that wait for a person."""

    def __init__(self, api: AgentApi, tickets: Sequence[Expected], seconds: float) -> None:
        self._api = api
        self._due = [(number * seconds / len(tickets), ticket) for number, ticket in enumerate(tickets)]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._accepted: set[str] = set()
        self._undecided = {ticket.task_id for ticket in tickets if ticket.shape is Shape.GREEDY}
        self._pool = ThreadPoolExecutor(_SENDERS + 1, thread_name_prefix="load")
        self._started = 0.0

    @property
    def accepted(self) -> frozenset[str]:
        """The tasks whose ticket the agent has accepted."""
        with self._lock:
            return frozenset(self._accepted)

    def start(self) -> None:
        """Starts the threads that send and decide."""
        self._started = time.monotonic()
        waiting = iter(self._due)
        for _ in range(_SENDERS):
            self._pool.submit(self._send, waiting)
        self._pool.submit(self._decide)

    def stop(self) -> None:
        """Stops sending and deciding."""
        self._stop.set()
        self._pool.shutdown()

    def _send(self, waiting: Any) -> None:
        while True:
            with self._lock:
                due, ticket = next(waiting, (0.0, None))
            if ticket is None or self._stop.wait(max(0.0, self._started + due - time.monotonic())):
                return
            while not self._api.submit(ticket.ticket):
                if self._stop.wait(_RETRY_SECONDS):
                    return
            with self._lock:
                self._accepted.add(ticket.task_id)

    def _decide(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            for task_id in sorted(self._undecided & self.accepted):
                view = self._api.view(task_id)
                if view is not None and view["status"] == "waiting":
                    self._api.reject(task_id)
                elif view is not None and view["status"] == "completed":
                    self._undecided.discard(task_id)
