"""Puts the sample customers, orders and policies into empty books: once, in one transaction.

The data file counts days back from the day of seeding, so that samples never go stale; the books hold
calendar days (as ordinals), so that they age like real ones afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sandbox.data import SeedBooks, SeedCustomer, SeedTenant
from sandbox.systems import orders
from sandbox.systems.order import from_seed
from sandbox.systems.order_books import Books


def seed(books: Books, load: Callable[[], SeedBooks], now: datetime) -> bool:
    """Fills empty books with what `load` gives; says whether they were empty. Filled ones stay as is."""
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
        orders.insert(books, tenant.tenant, customer.customer_id, from_seed(order, today))
