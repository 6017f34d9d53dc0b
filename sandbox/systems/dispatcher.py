"""Takes events from the outbox to their consumer: each at least once, those of a tenant in order.

Every tenant with events has a lane of its own: a task that delivers one after another and ends when none is left. An
event that is not taken is sent again, later and later, and holds back only its own tenant's. An event is noted as
delivered after the consumer said so; whoever is killed in between sends it again, and the consumer drops it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from sandbox.systems import outbox
from sandbox.systems.order_books import Books
from sandbox.systems.outbox import Event

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
# Whoever writes an event wakes the dispatcher; this finds what another process wrote, or what a fault left behind.
POLL_SECONDS = 5.0
_log = logging.getLogger(__name__)

Deliver = Callable[[Event], Awaitable[None]]
Pauses = Callable[[], Iterator[float]]


class NotDelivered(Exception):
    """The consumer did not say that it has the event; it may have it all the same."""


def growing_pauses() -> Iterator[float]:
    """Seconds between two tries of one event."""
    doubled = (FIRST_PAUSE_SECONDS * 2**number for number in itertools.count())
    yield from itertools.takewhile(lambda seconds: seconds < LONGEST_PAUSE_SECONDS, doubled)
    yield from itertools.repeat(LONGEST_PAUSE_SECONDS)


class Dispatcher:
    """One per process and books, on one event loop. `deliver` raises NotDelivered."""

    def __init__(
        self, books: Books, deliver: Deliver, clock: Callable[[], datetime], pauses: Pauses = growing_pauses
    ) -> None:
        self._books = books
        self._deliver = deliver
        self._clock = clock
        self._pauses = pauses
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._running = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Delivers what is left from before, and everything that is written from now on."""
        self._running = True
        watch = asyncio.create_task(self._look_again_and_again())
        try:
            yield
        finally:
            self._running = False
            await _ended([watch, *self._lanes.values()])

    def wake(self, tenant: str) -> None:
        """Says that an event of this tenant was written."""
        if self._running and tenant not in self._lanes:
            self._lanes[tenant] = asyncio.create_task(self._drain(tenant))

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                for tenant in outbox.waiting_tenants(self._books):
                    self.wake(tenant)
            except sqlite3.Error:
                _log.exception("events: looked for again in %g s", POLL_SECONDS)
            await asyncio.sleep(POLL_SECONDS)

    async def _drain(self, tenant: str) -> None:
        try:
            # Nothing is awaited between the last look and the lane's end: an event that is written then opens another.
            while (event := outbox.first_waiting(self._books, tenant)) is not None:
                await self._delivered(event)
                outbox.mark_delivered(self._books, event, self._clock())
        except Exception:
            _log.exception("events of tenant %s: looked at again in %g s", tenant, POLL_SECONDS)
        finally:
            del self._lanes[tenant]

    async def _delivered(self, event: Event) -> None:
        for pause in self._pauses():
            try:
                return await self._deliver(event)
            except NotDelivered as error:
                _log.warning("event %s is not delivered (%s); again in %.1f s", event.event_id, error, pause)
                await asyncio.sleep(pause)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
