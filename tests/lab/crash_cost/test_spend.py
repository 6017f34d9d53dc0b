"""The bill is priced as the product prices its calls; unbilled rows cost nothing."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from lab.crash_cost.spend import Spend, digests, total_cost
from runtime.errors import UserError
from tests.lab.crash_cost.kit import prices, row

ONE = Spend(1, 1_000, 0, 100, Decimal("0.00056"))


def test_a_row_costs_what_the_price_book_says() -> None:
    book = prices()
    assert book.spend([row("a")]) == ONE
    assert (book.currency, book.price_id) == ("USD", "prices.yaml/sandbox")


def test_cached_tokens_cost_less() -> None:
    assert prices().spend([row("a", cached_tokens=1_000)]).amount == Decimal("0.00026")


def test_unbilled_rows_cost_nothing() -> None:
    rows = [row("a"), row("b", billed=False, model="", input_tokens=0, output_tokens=0)]
    assert prices().spend(rows) == ONE
    assert digests(rows) == Counter(["a"])


def test_a_model_without_a_price_is_an_error() -> None:
    with pytest.raises(UserError, match="model nobody-knows has no price"):
        prices().spend([row("a", model="nobody-knows")])


def test_spends_add_up_and_take_away() -> None:
    assert ONE + ONE - ONE == ONE
    assert (ONE + ONE).tokens == 2_200


def test_a_repeated_request_is_priced_as_the_first_time() -> None:
    costs = prices().by_digest([row("a"), row("a", cached_tokens=1_000), row("b", input_tokens=2_000)])
    assert total_cost(Counter({"a": 2, "b": 1}), costs).amount == 2 * ONE.amount + Decimal("0.00096")
