"""What our own books say, as the stages and the guards read it: accounts, orders, refund policies. Values only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.models import Category, Currency, Frozen, Money, Reference


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
    refunds_90d: int
    orders: tuple[OrderSummary, ...] = ()


class OrderItem(Frozen):
    """One line of an order."""

    sku: str
    name: str
    quantity: int
    unit_price: Money


class Order(Frozen):
    """An order as the books know it; `refundable` is what was charged and not given back yet."""

    order_id: Reference
    status: str
    placed_days_ago: int
    delivered_days_ago: int | None
    currency: Currency
    total: Money
    charged: Money
    refunded: Money
    refundable: Money
    items: tuple[OrderItem, ...]


class RefundPolicy(Frozen):
    """A tenant's terms for one category."""

    category: Category
    window_days: int
    counted_from: Literal["delivery", "order"]
    refund_percent: int = Field(ge=0, le=100)
    text: str
