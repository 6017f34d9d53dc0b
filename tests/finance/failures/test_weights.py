"""Weights are whole numbers exactly proportional to the prices."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from app.finance.failures.failure_figures import weights


def test_without_prices_there_are_no_weights() -> None:
    assert weights({}) == {}


def test_a_weight_has_no_decimals() -> None:
    prices = {number: ("USD", Decimal(text)) for number, text in enumerate(("0.4", "0.0125", "75", "1E+1"))}
    assert weights(prices | {9: ("EUR", Decimal(2))}) == {
        0: ("USD", 4_000),
        1: ("USD", 125),
        2: ("USD", 750_000),
        3: ("USD", 100_000),
        9: ("EUR", 20_000),
    }


@given(st.lists(st.decimals(0, 10_000, allow_nan=False, allow_infinity=False), min_size=2))
def test_weights_are_proportional_to_prices(prices: list[Decimal]) -> None:
    weight_of = weights(dict(enumerate(("USD", price) for price in prices)))
    first, weight = Fraction(prices[0]), weight_of[0][1]
    for number, price in enumerate(prices):
        assert Fraction(price) * weight == first * weight_of[number][1]
