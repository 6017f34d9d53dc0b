"""The orders system: what was bought, paid, paid back and is in flight. Refunds raise `refunded`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sandbox.systems import holds, visitors
from sandbox.systems.answers import Answer, ok, refusal
from sandbox.systems.bodies import GetOrder
from sandbox.systems.order import Order, from_row
from sandbox.systems.order_books import Books


def get(books: Books, body: GetOrder, now: datetime) -> Answer:
    """Answers orders/get. Another customer's order is not found, exactly like one that does not exist."""
    order = find(books, body.tenant, body.customer_id, body.order_id, now, but_of=body.ticket_id)
    if order is None:
        return not_found(body.customer_id, body.order_id)
    return ok(order=order.in_full(now.date().toordinal()))


def find(
    books: Books, tenant: str, customer_id: str, order_id: str, now: datetime, *, but_of: str | None
) -> Order | None:
    """The order if it belongs to the customer, with what tickets other than `but_of` have in flight for it."""
    order = _stored(books, tenant, customer_id, order_id, now.date().toordinal())
    return order and replace(order, held=holds.of_order(books, tenant, order_id, but_of, now))


def _stored(books: Books, tenant: str, customer_id: str, order_id: str, today: int) -> Order | None:
    """A load generator's customer has an order without a row."""
    row = books.one(
        "SELECT * FROM orders WHERE tenant = ? AND order_id = ? AND customer_id = ?",
        tenant,
        order_id,
        customer_id,
    )
    if row is not None:
        return from_row(row)
    return visitors.order_of(tenant, customer_id, order_id, today)


def of_customer(books: Books, tenant: str, customer_id: str) -> list[Order]:
    """All orders of a customer that have a row, the newest first."""
    rows = books.all(
        "SELECT * FROM orders WHERE tenant = ? AND customer_id = ? ORDER BY placed_day DESC, order_id",
        tenant,
        customer_id,
    )
    return [from_row(row) for row in rows]


def not_found(customer_id: str, order_id: str) -> Answer:
    """The refusal for an order that is not there for this customer."""
    return refusal(
        "order_not_found",
        f"customer {customer_id} has no order {order_id}; ask the customer for the number on the receipt",
    )


def insert(books: Books, tenant: str, customer_id: str, order: Order) -> None:
    """Writes an order into the books. One that is there already stays as it is."""
    books.change(
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, order_id) DO NOTHING",
        tenant,
        order.order_id,
        customer_id,
        order.status,
        order.placed_day,
        order.delivered_day,
        order.currency,
        order.total,
        order.charged,
        order.refunded,
        order.items,
    )


def pay_back(books: Books, tenant: str, order_id: str, amount: int) -> None:
    """Raises what went back for an order. The books refuse more than was charged."""
    books.change(
        "UPDATE orders SET refunded = refunded + ? WHERE tenant = ? AND order_id = ?",
        amount,
        tenant,
        order_id,
    )
