"""An order as the books hold it: sums in minor units, days as calendar ordinals. Pure, no I/O."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from sandbox.data import SeedOrder
from sandbox.systems.answers import Answer
from sandbox.systems.money import to_minor, to_text


@dataclass(frozen=True)
class Order:
    """One order; `items` is JSON text, as written and as sent. `held` is what tickets have in flight for it."""

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
        """What may still go back, in minor units; never below zero, also where more was promised than is left."""
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


def from_row(row: sqlite3.Row) -> Order:
    """Reads an order from its row; what is in flight for it stands elsewhere."""
    return Order(**{name: row[name] for name in Order.__dataclass_fields__ if name != "held"})


def from_seed(seed: SeedOrder, today: int) -> Order:
    """Makes an order of sample data, whose days are counted back from `today`."""
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
