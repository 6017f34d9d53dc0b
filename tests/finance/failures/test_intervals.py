"""Intervals equal published ones, and contain the true value as often as they claim."""

from __future__ import annotations

import random
from decimal import Decimal
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.finance.failures.intervals import Interval, Quartiles, quartiles, share_of_sum, wilson

ROUNDS, FEWER = 4000, 300


def interval(value: str, low: str, high: str) -> Interval:
    """An interval given as texts."""
    return Interval(Decimal(value), Decimal(low), Decimal(high))


# Rates


@pytest.mark.parametrize(("hits", "of"), [(1, 10), (5, 10), (15, 100), (10, 1000), (1_500, 10_000)])
def test_the_ends_of_a_rate_are_the_rates_of_which_it_would_just_be_unusual(hits: int, of: int) -> None:
    """Wilson's definition: 1.96 standard errors of the end itself away."""
    bounds = wilson(hits, of)
    assert bounds is not None
    for end in map(float, (bounds.low, bounds.high)):
        assert abs(end - hits / of) / (end * (1 - end) / of) ** 0.5 == pytest.approx(1.959964, abs=0.002)


def test_none_or_all_of_ten() -> None:
    assert wilson(0, 10) == interval("0", "0", "0.277533")
    assert wilson(10, 10) == interval("1", "0.722467", "1")


def test_no_tasks_have_no_rate() -> None:
    assert wilson(0, 0) is None


@given(st.integers(1, 10**7), st.floats(0, 1))
def test_a_rate_lies_in_its_interval_which_lies_between_none_and_all(of: int, share: float) -> None:
    bounds = wilson(int(of * share), of)
    assert bounds is not None
    assert 0 <= bounds.low <= bounds.value <= bounds.high <= 1


# Sums


@pytest.mark.parametrize(
    ("events", "low", "high"),
    [  # Garwood's exact interval of a Poisson mean, as in every table of it
        (1, 0.0253178, 5.5716434),
        (2, 0.2422093, 7.2246877),
        (5, 1.6234864, 11.6683321),
        (10, 4.7953888, 18.3903560),
        (20, 12.2165399, 30.8883813),
        (50, 37.1110570, 65.9187770),
        (100, 81.3639850, 121.6270040),
    ],
)
def test_equal_weights_have_poissons_exact_interval(events: int, low: float, high: float) -> None:
    bounds = share_of_sum(Decimal(1), [7] * events, 1000)
    assert float(bounds.low) * events == pytest.approx(low, rel=2e-4, abs=1e-6)
    assert float(bounds.high) * events == pytest.approx(high, rel=2e-4)


def test_no_loss_has_an_upper_end() -> None:
    """As many tasks without one as there were, leave so many losses of an average task's size possible."""
    assert share_of_sum(Decimal(0), [], 1000) == Interval(
        Decimal(0), Decimal(0), Decimal(-log(0.025) / 1000).quantize(Decimal("0.000001"))
    )
    assert share_of_sum(Decimal(0), [], 0) == interval("0", "0", "0")


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50), st.integers(1, 10**6))
def test_the_unit_of_the_weights_does_not_matter(weights: list[int], unit: int) -> None:
    share = Decimal("0.25")
    one, other = share_of_sum(share, weights, 100), share_of_sum(share, [weight * unit for weight in weights], 100)
    assert one.value == other.value == share
    assert one.low <= one.value <= one.high
    assert abs(one.low - other.low) <= Decimal("0.000001")
    assert abs(one.high - other.high) <= Decimal("0.00001")


def cost(dice: random.Random) -> int:
    """What a failed task lost: a dear or a cheap one, early or late."""
    return int(1000 * dice.random() * (0.5 + dice.random()))


def covered(dice: random.Random, tasks: int, rate: float, *, bootstrap: bool) -> bool:
    """Whether one sample's interval holds the true mean."""
    mean = 500 * rate * tasks
    lost = [cost(dice) for _ in range(tasks) if dice.random() < rate]
    if not bootstrap:
        bounds = share_of_sum(Decimal(sum(lost)) / Decimal(mean), lost, tasks)
        return bounds.low <= 1 <= bounds.high
    every = lost + [0] * (tasks - len(lost))
    sums = sorted(sum(dice.choices(every, k=tasks)) for _ in range(200))
    return bool(sums[5] <= mean <= sums[194])


def test_the_interval_holds_the_truth_as_often_as_it_says_where_a_bootstrap_does_not() -> None:
    dice = random.Random(20_261_122)
    few, some = (100, 0.06), (200, 0.15)  # six and thirty failures on average
    for tasks, rate in (few, some):
        ours = sum(covered(dice, tasks, rate, bootstrap=False) for _ in range(ROUNDS))
        assert ours / ROUNDS >= 0.94
    theirs = sum(covered(dice, *few, bootstrap=True) for _ in range(FEWER))
    assert theirs / FEWER < 0.90


# Quartiles


def test_quartiles_lie_between_two_figures_in_proportion() -> None:
    assert quartiles([]) is None
    one = Decimal("0.5")
    assert quartiles([one]) == Quartiles(1, one, one, one, one)
    figures = quartiles(map(Decimal, ("0.4", "0.1", "0.2", "0.3")))
    assert figures == Quartiles(4, Decimal("0.25"), Decimal("0.175"), Decimal("0.25"), Decimal("0.325"))
    thirds = quartiles([Decimal(1) / 3, Decimal(2) / 3])
    assert thirds == Quartiles(2, *map(Decimal, ("0.5", "0.416667", "0.5", "0.583333")))
