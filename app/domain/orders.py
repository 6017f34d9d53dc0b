"""The data of the company's internal systems: accounts, orders, refund policies, holds and letters."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from app.domain.models import Category, Currency, Frozen, Money, Outcome, Reference, Refund


class OrderSummary(Frozen):
    """An order in the list of an account."""

    order_id: Reference
    status: str
    placed_days_ago: int
    total: Money
    currency: Currency
    items: tuple[str, ...]


class Account(Frozen):
    """A customer's account, without personal data."""

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
    """An order as the books show it for one ticket. `held` is in flight for other tickets: promised or waiting for a
    person, but not paid. `refundable` is what was charged, not refunded and not in flight."""

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
    """A tenant's refund terms for one category."""

    category: Category
    window_days: int
    counted_from: Literal["delivery", "order"]
    refund_percent: int = Field(ge=0, le=100)
    text: str


class Hold(Frozen):
    """Money that the books reserve for one ticket, so that no other ticket can use it.

    held: proposed; released after a time, or when the ticket ends without a refund. committed: the customer is being
    told, so it is kept until it is posted. posted: paid, as `refund_id`.
    """

    state: Literal["held", "committed", "posted"]
    refund: Refund
    refund_id: Reference | None = None

    @property
    def final(self) -> bool:
        """Whether the hold can no longer be released."""
        return self.state != "held"


class Exposure(Frozen):
    """The customer's other refunds when a ticket's money is held: the order, and in its currency what the customer
    received in 90 days or has in flight for other tickets."""

    order: Order
    refunds_90d: int
    refunded_90d: Money


class Letter(Frozen):
    """The content of the ticket's letter to the customer, without its wording."""

    outcome: Outcome
    refund: Refund | None = None


class Effects(Frozen):
    """What earlier runs of the ticket have done in the internal systems."""

    hold: Hold | None = None
    told: Letter | None = None
