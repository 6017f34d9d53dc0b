"""Holds: money that is reserved for a ticket before it is paid, so that no other ticket of the order can claim it.

A ticket has one hold. States: *held* (proposed; it expires), *committed* (the letter to the customer may be sent; the
money stays until it is posted), *posted*, *voided* (the ticket ended without a refund and can get none later).
Callers run these functions inside a transaction.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Literal

from sandbox.systems.books import Books, to_minor, to_text
from sandbox.systems.requests import PostRefund

State = Literal["held", "committed", "posted"]
COUNTED = timedelta(days=90)
# A hold that reduces what other tickets can claim: committed, or held and not expired.
_IN_FLIGHT = "(state = 'committed' OR (state = 'held' AND expires_at > ?))"


def of_ticket(books: Books, tenant: str, ticket_id: str) -> sqlite3.Row | None:
    """The ticket's hold in any state, or None."""
    return books.one("SELECT * FROM holds WHERE tenant = ? AND ticket_id = ?", tenant, ticket_id)


def put(books: Books, body: PostRefund, state: State, now: datetime, expires_at: datetime | None = None) -> None:
    """Writes the ticket's hold and replaces an earlier one."""
    books.change(
        "INSERT OR REPLACE INTO holds (tenant, ticket_id, state, idempotency_key, customer_id, order_id, amount,"
        " currency, at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        body.tenant,
        body.ticket_id,
        state,
        body.idempotency_key,
        body.customer_id,
        body.order_id,
        to_minor(body.amount, body.currency),
        body.currency,
        now.isoformat(),
        expires_at.isoformat() if expires_at else None,
    )


def void(books: Books, tenant: str, ticket_id: str, now: datetime) -> None:
    """Marks the ticket as voided, whether or not it has a hold."""
    books.change(
        "INSERT INTO holds (tenant, ticket_id, state, at) VALUES (?, ?, 'voided', ?)"
        " ON CONFLICT (tenant, ticket_id) DO UPDATE SET state = 'voided', at = excluded.at",
        tenant,
        ticket_id,
        now.isoformat(),
    )


def is_for(hold: sqlite3.Row, body: PostRefund) -> bool:
    """Whether the hold is for exactly this refund."""
    refund = (body.customer_id, body.order_id, to_minor(body.amount, body.currency), body.currency)
    return refund == (hold["customer_id"], hold["order_id"], hold["amount"], hold["currency"])


def describe(hold: sqlite3.Row) -> str:
    """The hold's amount, currency and order as text."""
    return f"{to_text(hold['amount'], hold['currency'])} {hold['currency']} for order {hold['order_id']}"


def of_order(books: Books, tenant: str, order_id: str, but_of: str | None, now: datetime) -> int:
    """The money in flight for an order, without that of ticket `but_of`, in minor units."""
    row = books.one(
        f"SELECT coalesce(sum(amount), 0) AS held FROM holds WHERE tenant = ? AND order_id = ?"  # noqa: S608 - a condition of ours
        f" AND ticket_id IS NOT ? AND {_IN_FLIGHT}",
        tenant,
        order_id,
        but_of,
        now.isoformat(),
    )
    return int(row["held"]) if row else 0


def of_customer(
    books: Books, tenant: str, customer_id: str, currency: str, but_of: str, now: datetime
) -> tuple[int, int]:
    """A customer's refunds of the last 90 days and in flight, without those of ticket `but_of`: their number, and the
    sum of those in `currency`, in minor units."""
    in_flight = books.one(
        f"SELECT count(*) AS refunds, coalesce(sum(amount) FILTER (WHERE currency = ?), 0) AS amount FROM holds"  # noqa: S608 - a condition of ours
        f" WHERE tenant = ? AND customer_id = ? AND ticket_id != ? AND {_IN_FLIGHT}",
        currency,
        tenant,
        customer_id,
        but_of,
        now.isoformat(),
    )
    posted = books.one(
        "SELECT count(*) AS refunds, coalesce(sum(amount) FILTER (WHERE currency = ?), 0) AS amount FROM refunds"
        " WHERE tenant = ? AND customer_id = ? AND ticket_id != ? AND at >= ?",
        currency,
        tenant,
        customer_id,
        but_of,
        (now - COUNTED).isoformat(),
    )
    rows = [row for row in (in_flight, posted) if row]
    return sum(row["refunds"] for row in rows), sum(row["amount"] for row in rows)
