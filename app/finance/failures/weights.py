"""Prices as whole numbers: what single tasks spent is added up quickly, and exactly.

Shares of a task's spend and intervals need no more than proportions within a currency. Sums of money are not made this
way: they are made of quantities at one price.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction


def weights(prices: Mapping[int, tuple[str, Decimal]]) -> dict[int, tuple[str, int]]:
    """Currency and weight of each price: the price times a power of ten, the same one for all, that leaves no
    decimals."""
    decimals = max((-int(price.as_tuple().exponent) for _, price in prices.values()), default=0)
    factor = 10 ** max(decimals, 0)
    return {number: (currency, int(Fraction(price) * factor)) for number, (currency, price) in prices.items()}
