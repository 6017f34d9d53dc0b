"""The cases and notifications systems: a ticket's letter and its case, each written once per idempotency key.

One transaction closes a case with a refund and writes the event "refund issued".
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from sandbox.systems import events, orders, refunds
from sandbox.systems.books import Books, to_minor
from sandbox.systems.entries import CASES, NOTIFICATIONS, add_entry, find_entry
from sandbox.systems.requests import Answer, CloseCase, GetCase, SendNotification, ok, refusal


def send_notification(books: Books, body: SendNotification, now: datetime) -> Answer:
    """Answers notifications/send: a new letter, the existing one of the key, or a refusal. Letters are only stored."""
    refund = body.refund
    money = (refund.order_id, to_minor(refund.amount, refund.currency), refund.currency) if refund else (None,) * 3
    entry = (body.ticket_id, body.customer_id, body.outcome.value, *money, body.text)
    with books.transaction():
        known = find_entry(books, NOTIFICATIONS, body.tenant, body.idempotency_key, entry)
        if known is not None:
            return known
        if not orders.customer_exists(books, body.tenant, body.customer_id):
            return orders.account_not_found(body.tenant, body.customer_id)
        return add_entry(books, NOTIFICATIONS, body.tenant, body.idempotency_key, entry, now)


def get_case(books: Books, body: GetCase, _now: datetime) -> Answer:
    """Answers cases/get: the ticket's hold or refund, and its letter's outcome and refund; null for what is missing."""
    letter = books.one(
        "SELECT * FROM notifications WHERE tenant = ? AND ticket_id = ? AND outcome IS NOT NULL ORDER BY id LIMIT 1",
        body.tenant,
        body.ticket_id,
    )
    hold = refunds.of_ticket(books, body.tenant, body.ticket_id)
    return ok(effects={"hold": hold, "told": letter and _letter(letter)})


def _letter(row: sqlite3.Row) -> Answer:
    return {"outcome": row["outcome"], "refund": refunds.money(row) if row["amount"] else None}


def close_case(books: Books, body: CloseCase, now: datetime) -> Answer:
    """Answers cases/close: a newly closed case, the existing one of the key, or a refusal."""
    entry = (body.ticket_id, body.outcome.value, body.refund_id)
    with books.transaction():
        known = find_entry(books, CASES, body.tenant, body.idempotency_key, entry)
        if known is not None:
            return known
        if body.refund_id is not None:
            refund = refunds.find(books, body.tenant, body.ticket_id, body.refund_id)
            if refund is None:
                return _no_refund(body)
            events.refund_issued(books, body.tenant, refunds.facts(refund), now)
        return add_entry(books, CASES, body.tenant, body.idempotency_key, entry, now)


def _no_refund(body: CloseCase) -> Answer:
    return refusal(
        "refund_not_found",
        f"ticket {body.ticket_id} has no refund {body.refund_id}; post it first, and close the case with its id",
    )
