"""How far a figure is known: 95 % intervals of rates and of sums, and quartiles. Floats only here: no money is made.

A rate is a share of tasks: Wilson's interval, which holds for few failures and never leaves 0 to 1.

A sum over failed tasks is one of unequal weights: the gamma interval of Fay and Feuer (1997). Weights that are all the
same give Poisson's exact interval. A bootstrap over tasks was not taken: with few failures it draws the same few again
and again and is too narrow (its test shows it), and with many it takes minutes to say the
same. Both take tasks as independent; where one outage hits many tasks at once, less is known than the interval says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

_PLACES = Decimal("0.000001")
_Z = 1.959963984540054  # 95 %, two-sided
_TAIL = 0.025
_NO_EVENT = -math.log(_TAIL)  # as many events on average leave none with a probability of _TAIL
_LARGE = 30  # from this shape on, the cube-root approximation is right to a ten-thousandth


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the ends of its 95 % interval, to six places."""

    value: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The middle of some figures, to six places."""

    count: int
    mean: Decimal
    lower: Decimal
    median: Decimal
    upper: Decimal


def rounded(figure: Decimal | float) -> Decimal:
    """To six places, half to even."""
    return Decimal(figure).quantize(_PLACES)


def wilson(hits: int, of: int) -> Interval | None:
    """The share `hits` of `of`; None of none."""
    if of == 0:
        return None
    share, square = hits / of, _Z * _Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Interval(rounded(Decimal(hits) / Decimal(of)), rounded(low), rounded(high))


def share_of_sum(share: Decimal, weights: Iterable[int], tasks: int) -> Interval:
    """A share of spend that is the sum of what single tasks spent, in any unit; `tasks` is how many there were in all.
    If none spent anything, the upper end is that of tasks that lose what an average task costs."""
    positive = [weight for weight in weights if weight > 0]
    if not positive:
        most = Decimal(_NO_EVENT) / tasks if tasks else share
        return Interval(rounded(share), Decimal(0), rounded(max(share, most)))
    low, high = _around(positive)
    return Interval(rounded(share), rounded(float(share) * low), rounded(float(share) * high))


def quartiles(figures: Iterable[Decimal]) -> Quartiles | None:
    """Mean and quartiles, between two figures in proportion; None of none."""
    ordered = sorted(figures)
    if not ordered:
        return None
    mean = rounded(sum(ordered) / len(ordered))
    return Quartiles(len(ordered), mean, *(_quantile(ordered, quarters) for quarters in (1, 2, 3)))


def _quantile(ordered: Sequence[Decimal], quarters: int) -> Decimal:
    place, rest = divmod((len(ordered) - 1) * quarters, 4)
    if not rest:
        return rounded(ordered[place])
    return rounded(ordered[place] + (ordered[place + 1] - ordered[place]) * rest / 4)


def _around(weights: Sequence[int]) -> tuple[float, float]:
    """The ends of a sum's interval, as multiples of the sum."""
    whole, squares, most = sum(weights), sum(weight * weight for weight in weights), max(weights)
    shape = whole * whole / squares
    low = _gamma_quantile(shape, upper=False) / shape
    more, spread = whole + most, squares + most * most
    high = _gamma_quantile(more * more / spread, upper=True) * (spread / more / whole)
    return low, high


def _gamma_quantile(shape: float, *, upper: bool) -> float:
    """Where all but `_TAIL` of a gamma distribution with scale 1 lies below, or above."""
    if shape >= _LARGE:
        z = _Z if upper else -_Z
        return float(shape * (1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape))) ** 3)
    target = 1 - _TAIL if upper else _TAIL
    low, high = 0.0, shape + 10 * math.sqrt(shape) + 20
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _gamma_below(shape, middle) < target else (low, middle)
    return (low + high) / 2


def _gamma_below(shape: float, x: float) -> float:
    """How much of a gamma distribution lies below `x`, by its series."""
    term = added = 1 / shape
    place = shape
    while term > added * 1e-12:
        place += 1
        term *= x / place
        added += term
    return added * math.exp(shape * math.log(x) - x - math.lgamma(shape))
