"""The order and the items that a claim is about, and the amount that order and policy allow for it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.domain.models import Category, minor_units
from sandbox.model.brain.conversation import Item, Order, Policy
from sandbox.model.brain.injection import sums_in
from sandbox.model.brain.signals import Signals, read_signals
from sandbox.model.brain.vocabulary import fold, is_word, words

_FILE = Path(__file__).with_name("goods.toml")
_LETTERS_OF_A_NOUN = 3
_NO_NOUN = frozenset(
    {
        "set",
        "pack",
        "wireless",
        "smart",
        "full",
        "led",
        "usb",
        "hd",
        "the",
        "and",
        "for",
        "with",
        "two",
        "three",
        "four",
    }
)


@lru_cache(maxsize=1)
def _glossary() -> dict[str, tuple[str, ...]]:
    data = tomllib.loads(_FILE.read_text("utf-8"))
    return {fold(noun): tuple(fold(meanings).split()) for noun, meanings in data.items()}


@lru_cache(maxsize=4096)
def _names(item: str) -> tuple[str, ...]:
    """The patterns of an item's name: its own words, and their translations from the glossary."""
    own = [w for w in words(item) if is_word(w) and len(w) >= _LETTERS_OF_A_NOUN and w.isalpha() and w not in _NO_NOUN]
    singular = [w[:-1] for w in own if w.endswith("s")]
    plural = [f"{w}s" for w in own]
    translations = [m for w in (*own, *singular) for m in _glossary().get(w, ())]
    return tuple(dict.fromkeys([*own, *singular, *plural, *translations]))


def _fits(word: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        core = pattern.strip("*")
        return core in word[1:] if pattern.endswith("*") else word.endswith(core) and word != core
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern


def named_items(text: str, items: Sequence[str]) -> list[int]:
    """The positions of the items that the text names. Words that fit several items do not count."""
    text_words = {w for w in words(text) if is_word(w)}
    matches = [frozenset(_matching_words(text_words, item)) for item in items]
    return [i for i, item_words in enumerate(matches) if item_words - _words_of_others(matches, i)]


def _matching_words(text_words: Iterable[str], item: str) -> Iterable[str]:
    patterns = _names(item)
    return (word for word in text_words if any(_fits(word, pattern) for pattern in patterns))


def _words_of_others(matches: Sequence[frozenset[str]], position: int) -> frozenset[str]:
    return frozenset().union(*(item_words for i, item_words in enumerate(matches) if i != position))


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
    """The order that a ticket without an order number means; None if it is unclear.

    It is the only order whose goods the ticket names, otherwise the only one with a fitting status, otherwise the only
    one with the most likely status, otherwise the only recent one with a fitting status.
    """
    fitting = [order for order in _orders(account) if order.get("status") in _PLAUSIBLE.get(category, ())]
    by_goods = [order for order in fitting if named_items(ticket, [" ".join(order.get("items", ()))])]
    first_state = [order for order in fitting if order.get("status") == _PLAUSIBLE[category][0]]
    recent = [order for order in fitting if order.get("placed_days_ago", 0) <= _RECENT_DAYS]
    for candidates in (by_goods, fitting, first_state, recent):
        if len(candidates) == 1:
            return str(candidates[0].get("order_id"))
    return None


def order_status(account: Mapping[str, Any], order_id: str | None, signals: Signals) -> tuple[str | None, str | None]:
    """The order whose status a question asks for, and the reply template's name; (None, None) for other questions."""
    orders = _orders(account)
    candidates = [order for order in orders if order.get("order_id") == order_id] if order_id else orders
    if signals.of("status") < _STATUS_ASKED or len(candidates) != 1:
        return None, None
    status = candidates[0].get("status")
    is_known = status in ("processing", "shipped", "delivered", "cancelled")
    return str(candidates[0].get("order_id")), f"status_{status}" if is_known else None


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
    """The price of what the ticket means: a line, some pieces of it, or the whole order; None if it is unclear."""
    some, whole = signals.of("some_item") >= _ENOUGH, signals.of("whole_order") >= _ENOUGH
    item = _meant_item(order, ticket)
    if item is not None and (some or not whole):
        return item.unit_price * _pieces(item, some, ticket)
    if some and not whole and len(order.items) > 1:
        return _priced_like(order, ticket)
    return order.refundable


def _meant_item(order: Order, ticket: str) -> Item | None:
    """The line of the order that the ticket is about; None if it is not exactly one."""
    if len(order.items) == 1:
        return order.items[0]
    names = [item.name for item in order.items]
    for part in (ticket, *sorted(_SENTENCES.split(ticket), key=_claims, reverse=True)):
        positions = named_items(part, names)
        if len(positions) == 1 and (part is ticket or _claims(part) > 0):
            return order.items[positions[0]]
    return None


def _claims(sentence: str) -> float:
    signals = read_signals("", sentence)
    return signals.of("wants") * 2 + signals.of(Category.DAMAGED, Category.WRONG_ITEM, Category.NOT_RECEIVED)


def _pieces(item: Item, some: bool, ticket: str) -> int:
    """The number of pieces that the ticket means: by the sum that it names, otherwise 1 if it means only some."""
    for sum_, _ in sums_in(ticket):
        if sum_ % item.unit_price == 0 and 0 < sum_ // item.unit_price <= item.quantity:
            return int(sum_ // item.unit_price)
    return 1 if some and item.quantity > 1 else item.quantity


def _priced_like(order: Order, ticket: str) -> Decimal | None:
    sums = {sum_ for sum_, _ in sums_in(ticket)}
    fitting = [item.unit_price * item.quantity for item in order.items if item.unit_price * item.quantity in sums]
    return fitting[0] if len(fitting) == 1 else None
