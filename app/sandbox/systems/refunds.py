"""The refunds system: money goes back once per key, once per ticket, and never more than was charged.

The refund's row and the order's `refunded` change in one transaction, so that no crash leaves one without
the other.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from app.sandbox.systems import orders
from app.sandbox.systems.answers import Answer, ok, refusal
from app.sandbox.systems.bodies import ListRefunds, PostRefund
from app.sandbox.systems.books import Books
from app.sandbox.systems.entries import REFUNDS, Value, add_entry, find_entry
from app.sandbox.systems.money import to_cents, to_text
from app.sandbox.systems.order import Order


def post(books: Books, body: PostRefund, now: datetime) -> Answer:
    """Answers refunds/post: a new refund, the one that the key stands for, or a refusal."""
    entry = _entry(body)
    with books.transaction():
        known = find_entry(books, REFUNDS, body.tenant, body.idempotency_key, entry)
        if known is not None:
            return known
        before = _of_ticket(books, body.tenant, body.ticket_id)
        if before is not None:
            return _already(body, before)
        order = orders.find(books, body.tenant, body.customer_id, body.order_id, now.date().toordinal())
        if order is None:
            return orders.not_found(body.customer_id, body.order_id)
        refused = _refusal(body, order)
        if refused is not None:
            return refused
        # A load generator's order has no row before its first refund.
        orders.insert(books, body.tenant, body.customer_id, order)
        orders.pay_back(books, body.tenant, body.order_id, to_cents(body.amount))
        return add_entry(books, REFUNDS, body.tenant, body.idempotency_key, entry, now)


def listed(books: Books, body: ListRefunds, _now: datetime) -> Answer:
    """Answers refunds/list: one page of refunds in the order in which they were posted, and where the next begins.

    Row numbers are given under the write lock, so that no refund can appear in a page that was read before.
    """
    after = REFUNDS.number(body.after) if body.after else 0
    of = "" if body.tenant is None else " AND tenant = ?"
    rows = books.all(
        f"SELECT * FROM refunds WHERE id > ?{of} ORDER BY id LIMIT ?",  # noqa: S608 - a condition of ours
        after,
        *([] if body.tenant is None else [body.tenant]),
        body.limit,
    )
    page = [facts(row) for row in rows]
    return ok(refunds=page, next=page[-1]["refund_id"] if len(page) == body.limit else None)


def find(books: Books, tenant: str, ticket_id: str, refund_id: str) -> sqlite3.Row | None:
    """The refund of that ticket under that id; None when there is none, or it is another ticket's."""
    return books.one(
        "SELECT * FROM refunds WHERE id = ? AND tenant = ? AND ticket_id = ?",
        REFUNDS.number(refund_id),
        tenant,
        ticket_id,
    )


def facts(row: sqlite3.Row) -> Answer:
    """A refund as it is told outside, without the customer."""
    same = ("idempotency_key", "tenant", "ticket_id", "order_id", "currency", "at")
    told: Answer = {name: row[name] for name in same}
    return {"refund_id": REFUNDS.public_id(row["id"]), "amount": to_text(row["amount"]), **told}


def _of_ticket(books: Books, tenant: str, ticket_id: str) -> sqlite3.Row | None:
    return books.one("SELECT * FROM refunds WHERE tenant = ? AND ticket_id = ? LIMIT 1", tenant, ticket_id)


def _already(body: PostRefund, row: sqlite3.Row) -> Answer:
    before = f"{REFUNDS.public_id(row['id'])}: {to_text(row['amount'])} {row['currency']} for order {row['order_id']}"
    return refusal("ticket_already_refunded", f"ticket {body.ticket_id} has its refund, {before}; it gets no other")


def _entry(body: PostRefund) -> tuple[Value, ...]:
    return (body.ticket_id, body.customer_id, body.order_id, to_cents(body.amount), body.currency)


def _refusal(body: PostRefund, order: Order) -> Answer | None:
    if order.currency != body.currency:
        return refusal(
            "currency_mismatch",
            f"order {order.order_id} was paid in {order.currency}, not in {body.currency}; "
            f"refund it in {order.currency}",
        )
    if to_cents(body.amount) > order.refundable:
        return refusal(
            "exceeds_refundable",
            f"{body.amount} {body.currency} is more than order {order.order_id} has left; "
            f"refund {to_text(order.refundable)} at most",
        )
    return None
