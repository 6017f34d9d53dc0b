"""Exact arithmetic on money: an inexact result is an error. Only `share` and `shown` round, for display."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from functools import reduce

ZERO = Decimal(0)
_HUNDRED = Decimal(100)
# A result with more than 100 digits is an error instead of being rounded. No sum of real charges comes near that.
_EXACT = Context(prec=100, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])
_SHOWING = Context(prec=100, rounding=ROUND_HALF_EVEN)


def add(left: Decimal, right: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(left, right)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum of all amounts; zero for none."""
    return reduce(_EXACT.add, amounts, ZERO)


def difference(left: Decimal, right: Decimal) -> Decimal:
    """The exact difference, `left` minus `right`."""
    return _EXACT.subtract(left, right)


def product(left: Decimal, right: Decimal) -> Decimal:
    """The exact product."""
    return _EXACT.multiply(left, right)


def amount_of(quantity: Decimal, unit_price: Decimal, per: Decimal) -> Decimal:
    """The cost of `quantity` at `unit_price` for every `per` units. `per` is a power of ten, so the result is exact."""
    return _EXACT.divide(_EXACT.multiply(quantity, unit_price), per)


def discounted(price: Decimal, percent: Decimal) -> Decimal:
    """The price reduced by `percent` per cent."""
    return _EXACT.divide(_EXACT.multiply(price, _HUNDRED - percent), _HUNDRED)


def share(amount: Decimal, of: int) -> Decimal:
    """The amount divided by `of`, for display: not exact, since most quotients do not terminate."""
    return _SHOWING.divide(amount, Decimal(of))


def plain(amount: Decimal) -> str:
    """All digits, without exponent and trailing zeros, so that equal numbers have equal texts."""
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def shown(amount: Decimal, places: int = 6) -> str:
    """The amount for display, rounded half to even to `places` decimal places."""
    return format(amount.quantize(Decimal(1).scaleb(-places), context=_SHOWING), "f")
