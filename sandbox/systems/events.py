"""Events between the systems: the outbox, the dispatcher that delivers at least once, and the bookkeeping that records
each event once."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp

from sandbox.systems.books import Books, to_minor
from sandbox.systems.requests import Answer, RefundIssued, ok

# The outbox: an event is written in the same transaction as the change that it reports.
#
# Events have the form of CloudEvents 1.0. The id is derived from the change, so that the same change always gives the
# same event.

SOURCE = "/cases"
REFUND_ISSUED = "refund.issued"


@dataclass(frozen=True)
class Event:
    """One event of the outbox; `number` is its position, `at` its time in ISO 8601."""

    number: int
    event_id: str
    type: str
    tenant: str
    at: str
    data: str

    def message(self) -> dict[str, Any]:
        """The event as a CloudEvent; `tenant` is an extension attribute."""
        return {
            "specversion": "1.0",
            "id": self.event_id,
            "source": SOURCE,
            "type": self.type,
            "time": self.at,
            "datacontenttype": "application/json",
            "tenant": self.tenant,
            "data": json.loads(self.data),
        }


def refund_issued(books: Books, tenant: str, refund: Answer, now: datetime) -> None:
    """Writes the event that a refund was issued, unless it exists. Only inside a transaction."""
    data = {name: refund[name] for name in ("refund_id", "ticket_id", "order_id", "amount", "currency")}
    books.change(
        "INSERT INTO outbox (event_id, type, tenant, at, data) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (event_id) DO NOTHING",
        f"{REFUND_ISSUED}-{refund['refund_id']}",
        REFUND_ISSUED,
        tenant,
        now.isoformat(),
        json.dumps(data),
    )


def waiting_tenants(books: Books) -> list[str]:
    """The tenants with undelivered events."""
    return [row["tenant"] for row in books.all("SELECT DISTINCT tenant FROM outbox WHERE delivered_at IS NULL")]


def first_waiting(books: Books, tenant: str) -> Event | None:
    """The oldest undelivered event of a tenant."""
    row = books.one(
        "SELECT id AS number, event_id, type, tenant, at, data FROM outbox"
        " WHERE tenant = ? AND delivered_at IS NULL ORDER BY id LIMIT 1",
        tenant,
    )
    return None if row is None else Event(**dict(row))


def mark_delivered(books: Books, event: Event, now: datetime) -> None:
    """Marks the event as delivered."""
    with books.transaction():
        books.change("UPDATE outbox SET delivered_at = ? WHERE id = ?", now.isoformat(), event.number)


# The dispatcher delivers each event of the outbox at least once, and the events of a tenant in order.
#
# Each tenant with waiting events has a lane: a task that delivers one event after another and ends when none is left.
# An event that is not accepted is retried with growing pauses and delays only its tenant's events. It is marked as
# delivered after the consumer has accepted it; after a crash in between it is sent again, and the consumer drops the
# duplicate.

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
# Writing an event wakes the dispatcher; polling finds events of other processes and those left after a failure.
POLL_SECONDS = 5.0
_log = logging.getLogger(__name__)

Deliver = Callable[[Event], Awaitable[None]]
Pauses = Callable[[], Iterator[float]]


class NotDelivered(Exception):
    """The consumer did not confirm the event, although it may have received it."""


def growing_pauses() -> Iterator[float]:
    """The seconds between the tries of an event: doubled each time, up to the longest pause."""
    doubled = (FIRST_PAUSE_SECONDS * 2**number for number in itertools.count())
    yield from itertools.takewhile(lambda seconds: seconds < LONGEST_PAUSE_SECONDS, doubled)
    yield from itertools.repeat(LONGEST_PAUSE_SECONDS)


class Dispatcher:
    """Delivers the outbox's events, on one event loop. `deliver` sends one event or raises NotDelivered."""

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
        """Delivers waiting and new events while the context is open."""
        self._running = True
        watch = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self._running = False
            await _cancel([watch, *self._lanes.values()])

    def wake(self, tenant: str) -> None:
        """Starts the delivery of this tenant's events, if it is not running."""
        if self._running and tenant not in self._lanes:
            self._lanes[tenant] = asyncio.create_task(self._drain(tenant))

    async def _poll(self) -> None:
        while True:
            try:
                for tenant in waiting_tenants(self._books):
                    self.wake(tenant)
            except sqlite3.Error:
                _log.exception("events: cannot be read; next try in %g s", POLL_SECONDS)
            await asyncio.sleep(POLL_SECONDS)

    async def _drain(self, tenant: str) -> None:
        try:
            # Nothing is awaited between the last read and the lane's end, so an event written later starts a new lane.
            while (event := first_waiting(self._books, tenant)) is not None:
                await self._deliver_until_accepted(event)
                mark_delivered(self._books, event, self._clock())
        except Exception:
            _log.exception("events of tenant %s: delivery failed; next try in %g s", tenant, POLL_SECONDS)
        finally:
            del self._lanes[tenant]

    async def _deliver_until_accepted(self, event: Event) -> None:
        for pause in self._pauses():
            try:
                return await self._deliver(event)
            except NotDelivered as error:
                _log.warning("event %s is not delivered (%s); next try in %.1f s", event.event_id, error, pause)
                await asyncio.sleep(pause)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


GIVE_UP_SECONDS = 5.0
CONTENT_TYPE = "application/cloudevents+json"


@asynccontextmanager
async def consumer(url: str, give_up_seconds: float = GIVE_UP_SECONDS) -> AsyncIterator[Deliver]:
    """A function that posts events to `url`, and raises NotDelivered unless the answer is `"ok": true`."""
    limit = aiohttp.ClientTimeout(total=give_up_seconds)
    async with aiohttp.ClientSession(timeout=limit) as session:

        async def deliver(event: Event) -> None:
            body = json.dumps(event.message())
            try:
                async with session.post(url, data=body, headers={"Content-Type": CONTENT_TYPE}) as response:
                    _check_accepted(response.status, await response.json() if response.status == 200 else None)
            except (TimeoutError, aiohttp.ClientError, ValueError) as error:
                raise NotDelivered(f"{type(error).__name__} at {url}") from None

        yield deliver


def _check_accepted(status: int, answer: Any) -> None:
    if status != 200:
        raise NotDelivered(f"status {status}")
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        raise NotDelivered("an answer without ok")


def record_refund(books: Books, event: RefundIssued, now: datetime) -> Answer:
    """Answers bookkeeping/record; `created` is false for an event that was recorded before."""
    with books.transaction():
        created = _is_new(books, event, now)
        if created:
            _book(books, event, now)
        return ok(event_id=event.id, created=created)


def _is_new(books: Books, event: RefundIssued, now: datetime) -> bool:
    row = books.one(
        "INSERT INTO inbox (source, event_id, received_at, deliveries) VALUES (?, ?, ?, 1)"
        " ON CONFLICT (source, event_id) DO UPDATE SET deliveries = deliveries + 1 RETURNING deliveries",
        event.source,
        event.id,
        now.isoformat(),
    )
    return row is not None and row["deliveries"] == 1


def _book(books: Books, event: RefundIssued, now: datetime) -> None:
    books.change(
        "INSERT INTO bookkeeping (event_id, tenant, refund_id, ticket_id, order_id, amount, currency, at, recorded_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        event.id,
        event.tenant,
        event.data.refund_id,
        event.data.ticket_id,
        event.data.order_id,
        to_minor(event.data.amount, event.data.currency),
        event.data.currency,
        event.time.isoformat(),
        now.isoformat(),
    )
