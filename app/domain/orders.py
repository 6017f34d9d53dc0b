"""What our own books say, as the stages and the guards read it: accounts, orders, refund policies. Values only."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from app.domain.models import Category, Currency, Frozen, Money, Outcome, Reference, Refund


class OrderSummary(Frozen):
    """An order as the account lists it."""

    order_id: Reference
    status: str
    placed_days_ago: int
    total: Money
    currency: Currency
    items: tuple[str, ...]


class Account(Frozen):
    """A customer's account without anything that names the person."""

    customer_id: Reference
    tier: str
    since_days: int
    risk: Literal["low", "high"]
    refunds_90d: int  # posted in the last 90 days
    orders: tuple[OrderSummary, ...] = ()


class OrderItem(Frozen):
    """One line of an order."""

    sku: str
    name: str
    quantity: int
    unit_price: Money


class Order(Frozen):
    """An order as the books know it for one ticket. `held` is what other tickets have in flight: promised or waiting
    for a person, not paid yet. `refundable` is what was charged, not given back and not in flight."""

    order_id: Reference
    status: str
    placed_days_ago: int
    delivered_days_ago: int | None
    currency: Currency
    total: Money
    charged: Money
    refunded: Money
    held: Money = Decimal(0)
    refundable: Money
    items: tuple[OrderItem, ...]


class RefundPolicy(Frozen):
    """A tenant's terms for one category."""

    category: Category
    window_days: int
    counted_from: Literal["delivery", "order"]
    refund_percent: int = Field(ge=0, le=100)
    text: str


class Hold(Frozen):
    """Money that the books keep for one ticket, so that no other can have it.

    held: proposed, and given back when the ticket ends without a refund or after a time. committed: the customer is
    being told, so it stays until it is posted. posted: paid, as `refund_id`.
    """

    state: Literal["held", "committed", "posted"]
    refund: Refund
    refund_id: Reference | None = None

    @property
    def final(self) -> bool:
        """Whether nothing can take the money back from the ticket any more."""
        return self.state != "held"


class Exposure(Frozen):
    """What counts beside a ticket's own hold: the order, and what the customer received in 90 days or has in flight
    for other tickets, in the order's currency."""

    order: Order
    refunds_90d: int
    refunded_90d: Money


class Letter(Frozen):
    """What the ticket's letter to the customer says, whatever its wording."""

    outcome: Outcome
    refund: Refund | None = None


class Effects(Frozen):
    """What an earlier run of the same ticket has done outside, as the books know it by the ticket."""

    hold: Hold | None = None
    told: Letter | None = None
