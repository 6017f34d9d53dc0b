"""How much a claim is worth by order, policy and what the ticket names. Pure; money is Decimal."""

from __future__ import annotations

import re
from decimal import ROUND_DOWN, Decimal

from app.domain.models import Category, minor_units
from sandbox.model.brain.goods import named
from sandbox.model.brain.injection import sums_in
from sandbox.model.brain.lookups import Item, Order, Policy
from sandbox.model.brain.signals import Signals, read_signals

_ENOUGH = 2.0
_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+")
_WHOLE_ALWAYS = (Category.CANCELLATION, Category.DOUBLE_CHARGE)


def claim_worth(category: Category, order: Order, policy: Policy, ticket: str, signals: Signals) -> Decimal | None:
    """The sum to propose, never above what is refundable; None when it is unclear which items are meant."""
    if category is Category.DOUBLE_CHARGE:
        return min(order.charged - order.total, order.refundable)
    base = order.refundable
    if category not in _WHOLE_ALWAYS and _items_sold(order) > 1:
        part = part_worth(order, ticket, signals)
        if part is None:
            return None
        base = min(base, part)
    smallest = Decimal(1).scaleb(-minor_units(order.currency))
    return (base * policy.refund_percent / 100).quantize(smallest, rounding=ROUND_DOWN)


def _items_sold(order: Order) -> int:
    return sum(item.quantity for item in order.items)


def part_worth(order: Order, ticket: str, signals: Signals) -> Decimal | None:
    """The price of what the ticket means: one line, some pieces of it, or everything; None when it does not say."""
    some, whole = signals.of("some_item") >= _ENOUGH, signals.of("whole_order") >= _ENOUGH
    item = _meant_item(order, ticket)
    if item is not None and (some or not whole):
        return item.unit_price * _pieces(item, some, ticket)
    if some and not whole and len(order.items) > 1:
        return _priced_like(order, ticket)
    return order.refundable


def _meant_item(order: Order, ticket: str) -> Item | None:
    """The one line of the order that the ticket is about, if it is one."""
    if len(order.items) == 1:
        return order.items[0]
    names = [item.name for item in order.items]
    for part in (ticket, *sorted(_SENTENCES.split(ticket), key=_claims, reverse=True)):
        found = named(part, names)
        if len(found) == 1 and (part is ticket or _claims(part) > 0):
            return order.items[found[0]]
    return None


def _claims(sentence: str) -> float:
    signals = read_signals("", sentence)
    return signals.of("wants") * 2 + signals.of(Category.DAMAGED, Category.WRONG_ITEM, Category.NOT_RECEIVED)


def _pieces(item: Item, some: bool, ticket: str) -> int:
    """How many pieces of a line: a price that is named tells, else one where the ticket says `one of`."""
    for sum_, _ in sums_in(ticket):
        if sum_ % item.unit_price == 0 and 0 < sum_ // item.unit_price <= item.quantity:
            return int(sum_ // item.unit_price)
    return 1 if some and item.quantity > 1 else item.quantity


def _priced_like(order: Order, ticket: str) -> Decimal | None:
    sums = {sum_ for sum_, _ in sums_in(ticket)}
    fitting = [item.unit_price * item.quantity for item in order.items if item.unit_price * item.quantity in sums]
    return fitting[0] if len(fitting) == 1 else None
