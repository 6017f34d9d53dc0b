"""Arithmetic on money: exact or an error; rounding happens in `shown` alone."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from functools import reduce

ZERO = Decimal(0)
_HUNDRED = Decimal(100)
# A result that does not fit is an error, not a rounded result. No sum of real charges comes near 100 digits.
_EXACT = Context(prec=100, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])
_SHOWING = Context(prec=100, rounding=ROUND_HALF_EVEN)


def add(left: Decimal, right: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(left, right)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum of many; their order does not matter."""
    return reduce(_EXACT.add, amounts, ZERO)


def difference(left: Decimal, right: Decimal) -> Decimal:
    """Exactly `left` minus `right`."""
    return _EXACT.subtract(left, right)


def product(left: Decimal, right: Decimal) -> Decimal:
    """The exact product."""
    return _EXACT.multiply(left, right)


def amount_of(quantity: Decimal, unit_price: Decimal, per: Decimal) -> Decimal:
    """What `quantity` costs at `unit_price` for each `per` of them. `per` is a power of ten, so this is exact."""
    return _EXACT.divide(_EXACT.multiply(quantity, unit_price), per)


def discounted(price: Decimal, percent: Decimal) -> Decimal:
    """`price` less `percent` of it."""
    return _EXACT.divide(_EXACT.multiply(price, _HUNDRED - percent), _HUNDRED)


def share(amount: Decimal, of: int) -> Decimal:
    """`amount` for each of so many, for a reader: no exact figure, since a division seldom ends."""
    return _SHOWING.divide(amount, Decimal(of))


def plain(amount: Decimal) -> str:
    """All digits without exponent and without trailing zeros: equal numbers have equal texts."""
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def shown(amount: Decimal, places: int = 6) -> str:
    """For a reader: rounded half to even. The only place where money is rounded."""
    return format(amount.quantize(Decimal(1).scaleb(-places), context=_SHOWING), "f")
