"""The refunds system: money goes back once per key, once per ticket, and never more than was charged.

A refund is held, then committed, then posted. For every other ticket, held and committed money counts as already paid.
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
    """Answers refunds/hold: keeps the money for the ticket, in the place of what was held for it before.

    A ticket whose refund is committed or posted keeps that one, whatever was asked for. `exposure` is what counts
    beside it. Refuses what the books would not pay.
    """
    with books.transaction():
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None:
            order = _order_of(books, body, final["order_id"], now)
            known = of_ticket(books, body.tenant, body.ticket_id)
            return ok(hold=known, exposure=_exposure(books, body, order, now) if order else None)
        order = _order_of(books, body, body.order_id, now)
        refused = _not_payable(books, body, order)
        if refused is not None or order is None:
            return refused or orders.order_not_found(body.customer_id, body.order_id)
        holds.put(books, body, "held", now, now + timedelta(hours=body.hours))
        return ok(hold=of_ticket(books, body.tenant, body.ticket_id), exposure=_exposure(books, body, order, now))


def commit(books: Books, body: PostRefund, now: datetime) -> Answer:
    """Answers refunds/commit: from now on the money is the ticket's, until it is posted. A hold that has ended by
    itself is made again if the order still has the money."""
    with books.transaction():
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None:
            return ok() if holds.says(final, body) else _promised(body, final)
        refused = _not_payable(books, body, _order_of(books, body, body.order_id, now))
        if refused is not None:
            return refused
        holds.put(books, body, "committed", now)
        return ok()


def void(books: Books, body: VoidRefund, now: datetime) -> Answer:
    """Answers refunds/void: the ticket gets no refund, now or later, and what was held is free again. Refuses once the
    customer is being told of one."""
    with books.transaction():
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None:
            return refusal(
                "already_committed",
                f"ticket {body.ticket_id}: the customer is told of {holds.told(final)}; it can only be posted",
            )
        holds.void(books, body.tenant, body.ticket_id, now)
        return ok()


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
        final = _final(books, body.tenant, body.ticket_id)
        if final is not None and not holds.says(final, body):
            return _promised(body, final)
        order = _order_of(books, body, body.order_id, now)
        refused = _not_payable(books, body, order)
        if refused is not None or order is None:
            return refused or orders.order_not_found(body.customer_id, body.order_id)
        # A load generator's order has no row before its first refund.
        orders.insert_order(books, body.tenant, body.customer_id, order)
        orders.pay_back(books, body.tenant, body.order_id, to_minor(body.amount, body.currency))
        holds.put(books, body, "posted", now)
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


def promised(books: Books, body: ListPromised, _now: datetime) -> Answer:
    """Answers refunds/promised: one page of commitments that are not posted yet, of all tenants."""
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
    """The refund of that ticket under that id; None when there is none, or it is another ticket's."""
    return books.one(
        "SELECT * FROM refunds WHERE id = ? AND tenant = ? AND ticket_id = ?",
        REFUNDS.number(refund_id),
        tenant,
        ticket_id,
    )


def of_ticket(books: Books, tenant: str, ticket_id: str) -> Answer | None:
    """The ticket's hold as it is told outside: held, committed or posted; None when nothing is kept for it."""
    posted = _of_ticket(books, tenant, ticket_id)
    if posted is not None:
        return {"state": "posted", "refund": money(posted), "refund_id": REFUNDS.public_id(posted["id"])}
    held = holds.of_ticket(books, tenant, ticket_id)
    if held is None or held["state"] not in ("held", "committed"):
        return None
    return {"state": held["state"], "refund": money(held), "refund_id": None}


def facts(row: sqlite3.Row) -> Answer:
    """A refund as it is told outside, without the customer."""
    same = ("idempotency_key", "tenant", "ticket_id", "at")
    told: Answer = {name: row[name] for name in same}
    return {"refund_id": REFUNDS.public_id(row["id"]), **money(row), **told}


def money(row: sqlite3.Row) -> Answer:
    """Order, amount and currency of a row of refunds, holds or notifications, as they are told outside."""
    currency = row["currency"]
    return {"order_id": row["order_id"], "amount": to_text(row["amount"], currency), "currency": currency}


def _of_ticket(books: Books, tenant: str, ticket_id: str) -> sqlite3.Row | None:
    return books.one("SELECT * FROM refunds WHERE tenant = ? AND ticket_id = ? LIMIT 1", tenant, ticket_id)


def _final(books: Books, tenant: str, ticket_id: str) -> sqlite3.Row | None:
    """The refund that the ticket will keep: the posted one, or the hold that is committed."""
    held = holds.of_ticket(books, tenant, ticket_id)
    return _of_ticket(books, tenant, ticket_id) or (held if held and held["state"] == "committed" else None)


def _order_of(books: Books, body: PostRefund, order_id: str, now: datetime) -> Order | None:
    """The order as the ticket sees it: what other tickets have in flight is held, its own is not."""
    return orders.find_order(books, body.tenant, body.customer_id, order_id, now, but_of=body.ticket_id)


def _exposure(books: Books, body: PostRefund, order: Order, now: datetime) -> Answer:
    count, amount = holds.of_customer(books, body.tenant, body.customer_id, order.currency, body.ticket_id, now)
    return {
        "order": order.in_full(now.date().toordinal()),
        "refunds_90d": orders.refunds_before(books, body.tenant, body.customer_id) + count,
        "refunded_90d": to_text(amount, order.currency),
    }


def _already(body: PostRefund, row: sqlite3.Row) -> Answer:
    before = (
        f"{REFUNDS.public_id(row['id'])}: {to_text(row['amount'], row['currency'])} {row['currency']}"
        f" for order {row['order_id']}"
    )
    return refusal("ticket_already_refunded", f"ticket {body.ticket_id} has its refund, {before}; it gets no other")


def _promised(body: PostRefund, hold: sqlite3.Row) -> Answer:
    return refusal("already_committed", f"ticket {body.ticket_id} has its refund, {holds.told(hold)}; it gets no other")


def _entry(body: PostRefund) -> tuple[Value, ...]:
    return (body.ticket_id, body.customer_id, body.order_id, to_minor(body.amount, body.currency), body.currency)


def _not_payable(books: Books, body: PostRefund, order: Order | None) -> Answer | None:
    """Why the books would not pay this now; what the ticket has in flight itself is no reason."""
    before = holds.of_ticket(books, body.tenant, body.ticket_id)
    if before is not None and before["state"] == "voided":
        return refusal("ticket_voided", f"ticket {body.ticket_id} has ended without a refund; it gets none any more")
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
