"""The accounts system: who a customer is to the shop. It holds no name and no address. Reads only."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from sandbox.systems import orders, visitors
from sandbox.systems.answers import Answer, ok, refusal
from sandbox.systems.bodies import GetAccount
from sandbox.systems.holds import COUNTED
from sandbox.systems.order_books import Books


def get(books: Books, body: GetAccount, now: datetime) -> Answer:
    """Answers accounts/get; `refunds_90d` counts the refunds posted here on top of those of before."""
    row = _row(books, body.tenant, body.customer_id)
    if row is None and not visitors.is_visitor(body.tenant, body.customer_id):
        return not_found(body.tenant, body.customer_id)
    today = now.date().toordinal()
    mine = orders.of_customer(books, body.tenant, body.customer_id)
    account: Answer = {
        "customer_id": body.customer_id,
        "tier": row["tier"] if row else "standard",
        "since_days": today - row["since_day"] if row else visitors.SINCE_DAYS,
        "risk": row["risk"] if row else "low",
        "refunds_90d": refunds_before(books, body.tenant, body.customer_id) + _posted_refunds(books, body, now),
        "orders": [order.in_brief(today) for order in mine or visitors.orders_of(body.tenant, body.customer_id, today)],
    }
    return ok(account=account)


def exists(books: Books, tenant: str, customer_id: str) -> bool:
    """Says whether the customer is known."""
    return visitors.is_visitor(tenant, customer_id) or _row(books, tenant, customer_id) is not None


def refunds_before(books: Books, tenant: str, customer_id: str) -> int:
    """How many refunds of the last ninety days the customer had before these books began."""
    row = _row(books, tenant, customer_id)
    return 0 if row is None else int(row["refunds_90d"])


def not_found(tenant: str, customer_id: str) -> Answer:
    """The refusal for a customer that is not known."""
    return refusal("account_not_found", f"tenant {tenant} has no customer {customer_id}; check the id in the form")


def _row(books: Books, tenant: str, customer_id: str) -> sqlite3.Row | None:
    return books.one("SELECT * FROM accounts WHERE tenant = ? AND customer_id = ?", tenant, customer_id)


def _posted_refunds(books: Books, body: GetAccount, now: datetime) -> int:
    row = books.one(
        "SELECT count(*) AS posted FROM refunds WHERE tenant = ? AND customer_id = ? AND at >= ?",
        body.tenant,
        body.customer_id,
        (now - COUNTED).isoformat(),
    )
    return 0 if row is None else int(row["posted"])
