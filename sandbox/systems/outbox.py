"""The outbox: an event is written in the transaction of what it tells about, so that the two leave together.

An event has the form of CloudEvents 1.0. Its id is made of what happened: the same fact is the same event, however
often it is written or sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.systems.answers import Answer
from sandbox.systems.order_books import Books

SOURCE = "/cases"
REFUND_ISSUED = "refund.issued"


@dataclass(frozen=True)
class Event:
    """One event of the outbox; `number` is its place in the order of events, `at` the time in ISO 8601."""

    number: int
    event_id: str
    type: str
    tenant: str
    at: str
    data: str

    def message(self) -> dict[str, Any]:
        """The event as it is sent; `tenant` is an extension attribute."""
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
    """Writes that a refund was issued; one that was written before stays as it is. Only inside a transaction."""
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
    """Whose events are not all delivered."""
    return [row["tenant"] for row in books.all("SELECT DISTINCT tenant FROM outbox WHERE delivered_at IS NULL")]


def first_waiting(books: Books, tenant: str) -> Event | None:
    """The oldest event of a tenant that is not delivered."""
    row = books.one(
        "SELECT id AS number, event_id, type, tenant, at, data FROM outbox"
        " WHERE tenant = ? AND delivered_at IS NULL ORDER BY id LIMIT 1",
        tenant,
    )
    return None if row is None else Event(**dict(row))


def mark_delivered(books: Books, event: Event, now: datetime) -> None:
    """Notes that the consumer has the event."""
    with books.transaction():
        books.change("UPDATE outbox SET delivered_at = ? WHERE id = ?", now.isoformat(), event.number)
