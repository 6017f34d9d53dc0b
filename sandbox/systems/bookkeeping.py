"""The bookkeeping system: the general ledger, which hears of refunds by events and books each of them once.

Events come at least once. The inbox knows which were seen, and is written in the transaction of the entry: an event
that comes again finds itself there and changes nothing.
"""

from __future__ import annotations

from datetime import datetime

from sandbox.systems.answers import Answer, ok
from sandbox.systems.bodies import RefundIssued
from sandbox.systems.money import to_minor
from sandbox.systems.order_books import Books


def record(books: Books, event: RefundIssued, now: datetime) -> Answer:
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
