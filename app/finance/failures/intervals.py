"""95 % intervals of rates and of sums, and quartiles. Floats are allowed here only, as no money is computed.

A rate (a share of tasks) has Wilson's interval, which is valid for few failures and never leaves 0 to 1.

A sum over failed tasks has unequal weights: the gamma interval of Fay and Feuer (1997), which for equal weights is
Poisson's exact interval. Not chosen: a bootstrap over tasks. With few failures it resamples the same few and is too
narrow (`tests/finance/failures/test_intervals.py` shows it); with many it takes minutes for the same result. Both
intervals assume independent tasks; if one outage hits many tasks, the true uncertainty is larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

_PLACES = Decimal("0.000001")
_Z = 1.959963984540054  # 95 %, two-sided
_TAIL = 0.025
_NO_EVENT = -math.log(_TAIL)  # the mean of a Poisson count that is zero with a probability of _TAIL
_LARGE = 30  # from this shape on, the cube-root approximation is accurate to a ten-thousandth


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the ends of its 95 % interval, to six places."""

    value: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Number, mean and quartiles of some figures, to six places."""

    count: int
    mean: Decimal
    lower: Decimal
    median: Decimal
    upper: Decimal


def rounded(figure: Decimal | float) -> Decimal:
    """The figure rounded to six places, half to even."""
    return Decimal(figure).quantize(_PLACES)


def wilson(hits: int, trials: int) -> Interval | None:
    """The rate `hits` / `trials` with Wilson's interval; None without trials."""
    if trials == 0:
        return None
    rate, square = hits / trials, _Z * _Z
    middle = (rate + square / (2 * trials)) / (1 + square / trials)
    half = _Z * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials)) / (1 + square / trials)
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Interval(rounded(Decimal(hits) / Decimal(trials)), rounded(low), rounded(high))


def share_of_sum(share: Decimal, weights: Iterable[int], tasks: int) -> Interval:
    """A share of spend with its gamma interval. `weights`: what each failed task lost, in any unit; `tasks`: the number
    of all tasks. If nothing was lost, the upper end assumes that a failed task loses what an average task costs."""
    positive = [weight for weight in weights if weight > 0]
    if not positive:
        most = Decimal(_NO_EVENT) / tasks if tasks else share
        return Interval(rounded(share), Decimal(0), rounded(max(share, most)))
    low, high = _around(positive)
    return Interval(rounded(share), rounded(float(share) * low), rounded(float(share) * high))


def quartiles(figures: Iterable[Decimal]) -> Quartiles | None:
    """Mean and quartiles, interpolated linearly between two figures; None without figures."""
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
    """The ends of the gamma interval of a sum, as multiples of the sum."""
    whole, squares, most = sum(weights), sum(weight * weight for weight in weights), max(weights)
    shape = whole * whole / squares
    low = _gamma_quantile(shape, upper=False) / shape
    more, spread = whole + most, squares + most * most
    high = _gamma_quantile(more * more / spread, upper=True) * (spread / more / whole)
    return low, high


def _gamma_quantile(shape: float, *, upper: bool) -> float:
    """The lower or upper `_TAIL` quantile of a gamma distribution with scale 1."""
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
    """The distribution function of a gamma distribution with scale 1 at `x`, computed by its series."""
    term = added = 1 / shape
    place = shape
    while term > added * 1e-12:
        place += 1
        term *= x / place
        added += term
    return added * math.exp(shape * math.log(x) - x - math.lgamma(shape))
