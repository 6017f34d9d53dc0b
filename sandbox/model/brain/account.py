"""What the account tells of its orders: which one a ticket can only mean, and how far one is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.models import Category
from sandbox.model.brain.goods import named
from sandbox.model.brain.signals import Signals

_PLAUSIBLE = {
    Category.DAMAGED: ("delivered",),
    Category.WRONG_ITEM: ("delivered",),
    Category.CHANGED_MIND: ("delivered", "shipped"),
    Category.NOT_RECEIVED: ("shipped", "delivered"),
    Category.CANCELLATION: ("processing", "shipped"),
    Category.DOUBLE_CHARGE: ("processing", "shipped", "delivered"),
}
_RECENT_DAYS = 60
_STATUS_ASKED = 3.0


def _orders(account: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    orders = account.get("orders")
    return [order for order in orders if isinstance(order, dict)] if isinstance(orders, list) else []


def plausible_order(category: Category, account: Mapping[str, Any], ticket: str) -> str | None:
    """The order that a ticket without a number means: the only one that names its goods, else the only one
    in a fitting state, else the only recent one of these; None when several remain."""
    fitting = [order for order in _orders(account) if order.get("status") in _PLAUSIBLE.get(category, ())]
    by_goods = [order for order in fitting if named(ticket, [" ".join(order.get("items", ()))])]
    first_state = [order for order in fitting if order.get("status") == _PLAUSIBLE[category][0]]
    recent = [order for order in fitting if order.get("placed_days_ago", 0) <= _RECENT_DAYS]
    for candidates in (by_goods, fitting, first_state, recent):
        if len(candidates) == 1:
            return str(candidates[0].get("order_id"))
    return None


def order_status(account: Mapping[str, Any], order_id: str | None, signals: Signals) -> tuple[str | None, str | None]:
    """The order whose whereabouts a question asks for, and the reply's name; (None, None) if it asks no such."""
    orders = _orders(account)
    mine = [order for order in orders if order.get("order_id") == order_id] if order_id else orders
    if signals.of("status") < _STATUS_ASKED or len(mine) != 1:
        return None, None
    status = mine[0].get("status")
    known = status in ("processing", "shipped", "delivered", "cancelled")
    return str(mine[0].get("order_id")), f"status_{status}" if known else None
