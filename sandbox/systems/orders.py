"""The orders, accounts and policies systems, and the seeding of the books with the sample data."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sandbox.data import SeedBooks, SeedCustomer, SeedOrder, SeedTenant
from sandbox.systems import holds
from sandbox.systems.books import Books, to_minor, to_text
from sandbox.systems.holds import COUNTED
from sandbox.systems.requests import Answer, GetAccount, GetOrder, GetPolicy, ok, refusal

# An order as the books hold it: sums in minor units, days as calendar ordinals.


@dataclass(frozen=True)
class Order:
    """One order; `items` is JSON text, `held` the money in flight for it."""

    order_id: str
    status: str
    placed_day: int
    delivered_day: int | None
    currency: str
    total: int
    charged: int
    refunded: int
    items: str
    held: int = 0

    @property
    def refundable(self) -> int:
        """The amount that can still be refunded, in minor units; zero if more is promised than is left."""
        return max(self.charged - self.refunded - self.held, 0)

    def in_full(self, today: int) -> Answer:
        """The order as orders/get answers it."""
        delivered = self.delivered_day
        return {
            "order_id": self.order_id,
            "status": self.status,
            "placed_days_ago": today - self.placed_day,
            "delivered_days_ago": None if delivered is None else today - delivered,
            "currency": self.currency,
            "total": to_text(self.total, self.currency),
            "charged": to_text(self.charged, self.currency),
            "refunded": to_text(self.refunded, self.currency),
            "held": to_text(self.held, self.currency),
            "refundable": to_text(self.refundable, self.currency),
            "items": json.loads(self.items),
        }

    def in_brief(self, today: int) -> Answer:
        """The order as accounts/get lists it."""
        return {
            "order_id": self.order_id,
            "status": self.status,
            "placed_days_ago": today - self.placed_day,
            "total": to_text(self.total, self.currency),
            "currency": self.currency,
            "items": [item["name"] for item in json.loads(self.items)],
        }


def order_from_row(row: sqlite3.Row) -> Order:
    """The order of a row, without `held`, which the row does not have."""
    return Order(**{name: row[name] for name in Order.__dataclass_fields__ if name != "held"})


def order_from_seed(seed: SeedOrder, today: int) -> Order:
    """The order of sample data, whose days are counted back from `today`."""
    delivered = seed.delivered_days_ago
    return Order(
        order_id=seed.order_id,
        status=seed.status,
        placed_day=today - seed.placed_days_ago,
        delivered_day=None if delivered is None else today - delivered,
        currency=seed.currency,
        total=to_minor(seed.total, seed.currency),
        charged=to_minor(seed.charged, seed.currency),
        refunded=to_minor(seed.refunded, seed.currency),
        items=json.dumps([item.model_dump(mode="json") for item in seed.items], ensure_ascii=False),
    )


# Customers of a load generator. They need no rows, so that a benchmark needs no seeding: in the tenant `bench`, every
# `load-...` is a customer, and `LD-<digits>` (five or more) is the only order of `load-<same digits>`. The order
# becomes a row with its first refund.

VISITOR_TENANT = "bench"
VISITOR_SINCE_DAYS = 400
_VISITOR = re.compile(r"load-(\d{5,})")
_VISITOR_ITEMS = json.dumps([{"sku": "LD-LAMP", "name": "Desk lamp", "quantity": 1, "unit_price": "20.00"}])
_VISITOR_CENTS = 2000


def is_visitor(tenant: str, customer_id: str) -> bool:
    """Whether this is a customer of a load generator."""
    return tenant == VISITOR_TENANT and customer_id.startswith("load-")


def visitor_orders(tenant: str, customer_id: str, today: int) -> list[Order]:
    """The only order of a load generator's customer, delivered three days ago; empty for other customers."""
    match = _VISITOR.fullmatch(customer_id)
    if tenant != VISITOR_TENANT or match is None:
        return []
    order = Order(
        order_id=f"LD-{match.group(1)}",
        status="delivered",
        placed_day=today - 6,
        delivered_day=today - 3,
        currency="EUR",
        total=_VISITOR_CENTS,
        charged=_VISITOR_CENTS,
        refunded=0,
        items=_VISITOR_ITEMS,
    )
    return [order]


def visitor_order(tenant: str, customer_id: str, order_id: str, today: int) -> Order | None:
    """The order of a load generator's customer, if it has this id."""
    orders = visitor_orders(tenant, customer_id, today)
    return next((order for order in orders if order.order_id == order_id), None)


def get_order(books: Books, body: GetOrder, now: datetime) -> Answer:
    """Answers orders/get. Another customer's order is answered like one that does not exist."""
    order = find_order(books, body.tenant, body.customer_id, body.order_id, now, but_of=body.ticket_id)
    if order is None:
        return order_not_found(body.customer_id, body.order_id)
    return ok(order=order.in_full(now.date().toordinal()))


def find_order(
    books: Books, tenant: str, customer_id: str, order_id: str, now: datetime, *, but_of: str | None
) -> Order | None:
    """The order if it belongs to the customer; its `held` excludes the money of ticket `but_of`."""
    order = _stored_order(books, tenant, customer_id, order_id, now.date().toordinal())
    return order and replace(order, held=holds.of_order(books, tenant, order_id, but_of, now))


def _stored_order(books: Books, tenant: str, customer_id: str, order_id: str, today: int) -> Order | None:
    """The order from its row or, for a load generator's customer, from its name."""
    row = books.one(
        "SELECT * FROM orders WHERE tenant = ? AND order_id = ? AND customer_id = ?",
        tenant,
        order_id,
        customer_id,
    )
    if row is not None:
        return order_from_row(row)
    return visitor_order(tenant, customer_id, order_id, today)


def orders_of_customer(books: Books, tenant: str, customer_id: str) -> list[Order]:
    """The customer's orders that have a row, newest first."""
    rows = books.all(
        "SELECT * FROM orders WHERE tenant = ? AND customer_id = ? ORDER BY placed_day DESC, order_id",
        tenant,
        customer_id,
    )
    return [order_from_row(row) for row in rows]


def order_not_found(customer_id: str, order_id: str) -> Answer:
    """The refusal for an order that this customer does not have."""
    return refusal(
        "order_not_found",
        f"customer {customer_id} has no order {order_id}; ask the customer for the number on the receipt",
    )


def insert_order(books: Books, tenant: str, customer_id: str, order: Order) -> None:
    """Writes an order, unless the books have it already."""
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
    """Adds to an order's refunded amount. A constraint of the table refuses more than was charged."""
    books.change(
        "UPDATE orders SET refunded = refunded + ? WHERE tenant = ? AND order_id = ?",
        amount,
        tenant,
        order_id,
    )


def get_policy(books: Books, body: GetPolicy, now: datetime) -> Answer:
    """Answers policies/get; only refundable categories have a policy."""
    row = books.one(
        "SELECT category, window_days, counted_from, refund_percent, text FROM policies"
        " WHERE tenant = ? AND category = ?",
        body.tenant,
        body.category,
    )
    if row is None:
        return refusal(
            "no_policy",
            f"tenant {body.tenant} has no refund policy for '{body.category}'; nothing is paid back",
        )
    return ok(policy=dict(row))


def get_account(books: Books, body: GetAccount, now: datetime) -> Answer:
    """Answers accounts/get, without name and address. `refunds_90d` counts the refunds posted here and the seeded
    ones."""
    row = _account_row(books, body.tenant, body.customer_id)
    if row is None and not is_visitor(body.tenant, body.customer_id):
        return account_not_found(body.tenant, body.customer_id)
    today = now.date().toordinal()
    stored_orders = orders_of_customer(books, body.tenant, body.customer_id)
    account: Answer = {
        "customer_id": body.customer_id,
        "tier": row["tier"] if row else "standard",
        "since_days": today - row["since_day"] if row else VISITOR_SINCE_DAYS,
        "risk": row["risk"] if row else "low",
        "refunds_90d": refunds_before(books, body.tenant, body.customer_id) + _posted_refunds(books, body, now),
        "orders": [
            order.in_brief(today) for order in stored_orders or visitor_orders(body.tenant, body.customer_id, today)
        ],
    }
    return ok(account=account)


def customer_exists(books: Books, tenant: str, customer_id: str) -> bool:
    """Whether the customer exists."""
    return is_visitor(tenant, customer_id) or _account_row(books, tenant, customer_id) is not None


def refunds_before(books: Books, tenant: str, customer_id: str) -> int:
    """The customer's seeded number of refunds in the 90 days before the books were created."""
    row = _account_row(books, tenant, customer_id)
    return 0 if row is None else int(row["refunds_90d"])


def account_not_found(tenant: str, customer_id: str) -> Answer:
    """The refusal for an unknown customer."""
    return refusal("account_not_found", f"tenant {tenant} has no customer {customer_id}; check the id in the form")


def _account_row(books: Books, tenant: str, customer_id: str) -> sqlite3.Row | None:
    return books.one("SELECT * FROM accounts WHERE tenant = ? AND customer_id = ?", tenant, customer_id)


def _posted_refunds(books: Books, body: GetAccount, now: datetime) -> int:
    row = books.one(
        "SELECT count(*) AS posted FROM refunds WHERE tenant = ? AND customer_id = ? AND at >= ?",
        body.tenant,
        body.customer_id,
        (now - COUNTED).isoformat(),
    )
    return 0 if row is None else int(row["posted"])


# Seeding. The data file counts days back from the day of seeding, so that the samples never become outdated. The books
# hold calendar days (as ordinals), so that the orders age afterwards.


def seed(books: Books, load: Callable[[], SeedBooks], now: datetime) -> bool:
    """Fills empty books with the data of `load`, in one transaction. Returns False for books that are not empty."""
    with books.transaction():
        if books.one("SELECT 1 FROM policies LIMIT 1") is not None:
            return False
        today = now.date().toordinal()
        for tenant in load().tenants:
            _seed_policies(books, tenant)
            for customer in tenant.customers:
                _seed_customer(books, tenant, customer, today)
        return True


def _seed_policies(books: Books, tenant: SeedTenant) -> None:
    for policy in tenant.policies:
        books.change(
            "INSERT INTO policies VALUES (?, ?, ?, ?, ?, ?)",
            tenant.tenant,
            policy.category.value,
            policy.window_days,
            policy.counted_from,
            policy.refund_percent,
            policy.text,
        )


def _seed_customer(books: Books, tenant: SeedTenant, customer: SeedCustomer, today: int) -> None:
    books.change(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)",
        tenant.tenant,
        customer.customer_id,
        customer.tier,
        today - customer.since_days,
        customer.risk,
        customer.refunds_90d,
    )
    for order in customer.orders:
        insert_order(books, tenant.tenant, customer.customer_id, order_from_seed(order, today))
