"""The refunds system: money goes back once per key, and never more than was charged.

The refund's row and the order's `refunded` change in one transaction, so that no crash leaves one without
the other.
"""

from __future__ import annotations

from datetime import datetime

from app.sandbox.systems import orders
from app.sandbox.systems.answers import Answer, refusal
from app.sandbox.systems.bodies import PostRefund
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
