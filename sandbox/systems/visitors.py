"""Customers of a load generator: they exist by their name alone, so that a benchmark needs no seeding.

For the tenant `bench`, any `load-...` is a customer, and `LD-<digits>` (five or more) is the one order of
`load-<same digits>`. It becomes a row of the books with its first refund. Pure, no I/O.
"""

from __future__ import annotations

import json
import re

from sandbox.systems.order import Order

TENANT = "bench"
SINCE_DAYS = 400
_CUSTOMER = re.compile(r"load-(\d{5,})")
_ITEMS = json.dumps([{"sku": "LD-LAMP", "name": "Desk lamp", "quantity": 1, "unit_price": "20.00"}])
_CENTS = 2000


def is_visitor(tenant: str, customer_id: str) -> bool:
    """Says whether this is a customer of a load generator."""
    return tenant == TENANT and customer_id.startswith("load-")


def orders_of(tenant: str, customer_id: str, today: int) -> list[Order]:
    """The one order of a load generator's customer, delivered three days ago; none for anybody else."""
    known = _CUSTOMER.fullmatch(customer_id)
    if tenant != TENANT or known is None:
        return []
    order = Order(
        order_id=f"LD-{known.group(1)}",
        status="delivered",
        placed_day=today - 6,
        delivered_day=today - 3,
        currency="EUR",
        total=_CENTS,
        charged=_CENTS,
        refunded=0,
        items=_ITEMS,
    )
    return [order]


def order_of(tenant: str, customer_id: str, order_id: str, today: int) -> Order | None:
    """The order of a load generator's customer if it has that id."""
    mine = orders_of(tenant, customer_id, today)
    return next((order for order in mine if order.order_id == order_id), None)
