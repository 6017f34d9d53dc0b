"""The refunds system: one refund per idempotency key and per ticket, and never more than was charged for the order.

A refund is held, then committed, then posted. For other tickets, held and committed money counts as already paid.
Each method changes the hold, the refund and the order's `refunded` in one transaction, so that a crash cannot leave one
without the others.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from sandbox.systems import holds, orders
from sandbox.systems.books import Books, to_minor, to_text
from sandbox.systems.entries import REFUNDS, Value, add_entry, find_entry
from sandbox.systems.orders import Order
from sandbox.systems.requests import Answer, HoldRefund, ListPromised, ListRefunds, PostRefund, VoidRefund, ok, refusal


def hold(books: Books, body: HoldRefund, now: datetime) -> Answer:
    """Answers refunds/hold: reserves the money for the ticket and replaces its earlier hold.

    If the ticket's refund is committed or posted, the answer has that refund instead of the requested one. `exposure`
    has the order and the customer's other refunds. Refuses a refund that could not be paid.
    """
    with books.transaction():
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None:
            order = _order_of(books, body, final["order_id"], now)
            current = of_ticket(books, body.tenant, body.ticket_id)
            return ok(hold=current, exposure=_exposure(books, body, order, now) if order else None)
        order = _order_of(books, body, body.order_id, now)
        refused = _refusal_to_pay(books, body, order)
        if refused is not None or order is None:
            return refused or orders.order_not_found(body.customer_id, body.order_id)
        holds.put(books, body, "held", now, now + timedelta(hours=body.hours))
        return ok(hold=of_ticket(books, body.tenant, body.ticket_id), exposure=_exposure(books, body, order, now))


def commit(books: Books, body: PostRefund, now: datetime) -> Answer:
    """Answers refunds/commit: the money stays reserved until it is posted. An expired hold is renewed if the order
    still has the money."""
    with books.transaction():
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None:
            return ok() if holds.is_for(final, body) else _refuse_other(body, final)
        refused = _refusal_to_pay(books, body, _order_of(books, body, body.order_id, now))
        if refused is not None:
            return refused
        holds.put(books, body, "committed", now)
        return ok()


def void(books: Books, body: VoidRefund, now: datetime) -> Answer:
    """Answers refunds/void: the ticket gets no refund, now or later, and its hold is released. Refuses if the refund is
    committed or posted."""
    with books.transaction():
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None:
            return refusal(
                "already_committed",
                f"ticket {body.ticket_id}: the refund of {holds.describe(final)} is committed; it can only be posted",
            )
        holds.void(books, body.tenant, body.ticket_id, now)
        return ok()


def post(books: Books, body: PostRefund, now: datetime) -> Answer:
    """Answers refunds/post: a new refund, the existing one of the key, or a refusal."""
    entry = _entry(body)
    with books.transaction():
        known = find_entry(books, REFUNDS, body.tenant, body.idempotency_key, entry)
        if known is not None:
            return known
        existing = _of_ticket(books, body.tenant, body.ticket_id)
        if existing is not None:
            return _refuse_second(body, existing)
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None and not holds.is_for(final, body):
            return _refuse_other(body, final)
        order = _order_of(books, body, body.order_id, now)
        refused = _refusal_to_pay(books, body, order)
        if refused is not None or order is None:
            return refused or orders.order_not_found(body.customer_id, body.order_id)
        # A load generator's order has no row before its first refund.
        orders.insert_order(books, body.tenant, body.customer_id, order)
        orders.pay_back(books, body.tenant, body.order_id, to_minor(body.amount, body.currency))
        holds.put(books, body, "posted", now)
        return add_entry(books, REFUNDS, body.tenant, body.idempotency_key, entry, now)


def list_refunds(books: Books, body: ListRefunds, _now: datetime) -> Answer:
    """Answers refunds/list: a page of refunds in the order of posting, and the cursor of the next page.

    Row numbers are assigned under the write lock, so that no refund can appear later in a page that was already read.
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


def list_promised(books: Books, body: ListPromised, _now: datetime) -> Answer:
    """Answers refunds/promised: a page of committed refunds of all tenants that are not posted yet."""
    rows = books.all(
        "SELECT *, tenant || ':' || ticket_id AS cursor FROM holds WHERE state = 'committed' AND cursor > ?"
        " ORDER BY cursor LIMIT ?",
        body.after or "",
        body.limit,
    )
    page: list[Answer] = [
        {"tenant": row["tenant"], "ticket_id": row["ticket_id"], **money(row), "at": row["at"]} for row in rows
    ]
    return ok(promised=page, next=rows[-1]["cursor"] if len(rows) == body.limit else None)


def find(books: Books, tenant: str, ticket_id: str, refund_id: str) -> sqlite3.Row | None:
    """The refund with this id; None if there is none or it belongs to another ticket."""
    return books.one(
        "SELECT * FROM refunds WHERE id = ? AND tenant = ? AND ticket_id = ?",
        REFUNDS.number(refund_id),
        tenant,
        ticket_id,
    )


def of_ticket(books: Books, tenant: str, ticket_id: str) -> Answer | None:
    """The ticket's hold as the API shows it: held, committed or posted; None without one."""
    posted = _of_ticket(books, tenant, ticket_id)
    if posted is not None:
        return {"state": "posted", "refund": money(posted), "refund_id": REFUNDS.public_id(posted["id"])}
    held = holds.of_ticket(books, tenant, ticket_id)
    if held is None or held["state"] not in ("held", "committed"):
        return None
    return {"state": held["state"], "refund": money(held), "refund_id": None}


def facts(row: sqlite3.Row) -> Answer:
    """A refund as the API shows it, without the customer."""
    columns = {name: row[name] for name in ("idempotency_key", "tenant", "ticket_id", "at")}
    return {"refund_id": REFUNDS.public_id(row["id"]), **money(row), **columns}


def money(row: sqlite3.Row) -> Answer:
    """Order, amount and currency of a row of refunds, holds or notifications, as the API shows them."""
    currency = row["currency"]
    return {"order_id": row["order_id"], "amount": to_text(row["amount"], currency), "currency": currency}


def _of_ticket(books: Books, tenant: str, ticket_id: str) -> sqlite3.Row | None:
    return books.one("SELECT * FROM refunds WHERE tenant = ? AND ticket_id = ? LIMIT 1", tenant, ticket_id)


def _final(books: Books, tenant: str, ticket_id: str) -> sqlite3.Row | None:
    """The ticket's final refund: the posted one or the committed hold."""
    held = holds.of_ticket(books, tenant, ticket_id)
    return _of_ticket(books, tenant, ticket_id) or (held if held and held["state"] == "committed" else None)


def _order_of(books: Books, body: PostRefund, order_id: str, now: datetime) -> Order | None:
    """The order for this ticket: `held` counts the money in flight for other tickets only."""
    return orders.find_order(books, body.tenant, body.customer_id, order_id, now, but_of=body.ticket_id)


def _exposure(books: Books, body: PostRefund, order: Order, now: datetime) -> Answer:
    count, amount = holds.of_customer(books, body.tenant, body.customer_id, order.currency, body.ticket_id, now)
    return {
        "order": order.in_full(now.date().toordinal()),
        "refunds_90d": orders.refunds_before(books, body.tenant, body.customer_id) + count,
        "refunded_90d": to_text(amount, order.currency),
    }


def _refuse_second(body: PostRefund, row: sqlite3.Row) -> Answer:
    existing = (
        f"{REFUNDS.public_id(row['id'])}: {to_text(row['amount'], row['currency'])} {row['currency']}"
        f" for order {row['order_id']}"
    )
    return refusal("ticket_already_refunded", f"ticket {body.ticket_id} has its refund, {existing}; it gets no other")


def _refuse_other(body: PostRefund, hold: sqlite3.Row) -> Answer:
    return refusal(
        "already_committed", f"ticket {body.ticket_id} has its refund, {holds.describe(hold)}; it gets no other"
    )


def _entry(body: PostRefund) -> tuple[Value, ...]:
    return (body.ticket_id, body.customer_id, body.order_id, to_minor(body.amount, body.currency), body.currency)


def _refusal_to_pay(books: Books, body: PostRefund, order: Order | None) -> Answer | None:
    """The refusal of a refund that cannot be paid now; None if it can. The ticket's own hold does not count."""
    hold = holds.of_ticket(books, body.tenant, body.ticket_id)
    if hold is not None and hold["state"] == "voided":
        return refusal("ticket_voided", f"ticket {body.ticket_id} has ended without a refund and can get none later")
    if order is None:
        return orders.order_not_found(body.customer_id, body.order_id)
    if order.currency != body.currency:
        return refusal(
            "currency_mismatch",
            f"order {order.order_id} was paid in {order.currency}, not in {body.currency}; "
            f"refund it in {order.currency}",
        )
    if to_minor(body.amount, body.currency) > order.refundable:
        return refusal(
            "exceeds_refundable",
            f"{body.amount} {body.currency} is more than order {order.order_id} has left; "
            f"refund {to_text(order.refundable, order.currency)} at most",
        )
    return None
