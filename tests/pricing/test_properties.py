"""Properties of prices and sums for random books and usage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from app.finance.repricing import reprice, usage_of
from app.finance.rollup import Dimension, Group, rollup
from app.pricing.book import PriceBook
from app.pricing.charge_types import Charge, CostBasis, TokenUsage
from app.pricing.formula import CallPrice, charge_call, price_call
from app.pricing.schedule import Price, tier_starts
from tests.pricing.makers import NOW, OPENAI, origin
from tests.pricing.random_values import books, charges, usages

# The same examples each time, and no deadline, because the machine may be busy.
SEEDED = settings(derandomize=True, max_examples=60)


def priced(book: PriceBook, usage: TokenUsage) -> CallPrice:
    price = price_call(book, usage, at=NOW, model="model-a", provider=OPENAI)
    assert isinstance(price, CallPrice)
    return price


def exact(amount: Decimal | None) -> Fraction:
    return Fraction(0) if amount is None else Fraction(amount)


@st.composite
def charged_books(draw: st.DrawFn) -> tuple[PriceBook, list[Charge]]:
    book = draw(books())
    return book, draw(charges(book))


@SEEDED
@given(books(), usages())
def test_lines_sum_to_their_call_to_the_last_digit(book: PriceBook, usage: TokenUsage) -> None:
    price = priced(book, usage)
    assert exact(price.contracted_cost) == sum(exact(line.contracted_cost) for line in price.lines)
    for line in price.lines:
        if line.consumed_quantity is not None and line.contracted_unit_price is not None:
            assert (
                exact(line.contracted_cost)
                == Fraction(line.consumed_quantity) * Fraction(line.contracted_unit_price) / 10**6
            )


@SEEDED
@given(books(), usages(whole=True))
def test_each_token_is_in_exactly_one_line(book: PriceBook, usage: TokenUsage) -> None:
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    counted = sum(line.consumed_quantity or 0 for line in priced(book, usage).lines)
    assert counted == usage.input_tokens + usage.output_tokens


@SEEDED
@given(books(tiers=False), usages(whole=True), usages(whole=True))
def test_two_usages_cost_what_their_sum_costs(book: PriceBook, first: TokenUsage, second: TokenUsage) -> None:
    apart = exact(priced(book, first).contracted_cost) + exact(priced(book, second).contracted_cost)
    assert exact(priced(book, first + second).contracted_cost) == apart


@SEEDED
@given(books(), usages(whole=True), st.integers(0, 3_000), st.integers(0, 3_000))
def test_more_tokens_never_cost_less_except_across_a_tier(
    book: PriceBook, usage: TokenUsage, more_input: int, more_output: int
) -> None:
    more = usage + TokenUsage(
        input_tokens=more_input, output_tokens=more_output, cached_tokens=0, cache_write_tokens=0, reasoning_tokens=0
    )
    price = book.find(OPENAI, "model-a", NOW)
    assert isinstance(price, Price)
    assert usage.input_tokens is not None
    assert more.input_tokens is not None
    starts = tier_starts(price.contracted)
    crossed = any(usage.input_tokens <= start < more.input_tokens for start in starts)
    assert crossed or exact(priced(book, more).contracted_cost) >= exact(priced(book, usage).contracted_cost)


def money(groups: Sequence[Group]) -> dict[str, Fraction]:
    sums: dict[str, Fraction] = {}
    for group in groups:
        for amount in group.money:
            sums[amount.currency] = sums.get(amount.currency, Fraction(0)) + Fraction(amount.contracted_cost)
    return sums


LEVELS = (Dimension.TENANT, Dimension.TASK, Dimension.STAGE)


@SEEDED
@given(charged_books())
def test_stages_sum_to_tasks_tasks_to_tenants_and_tenants_to_the_total(made: tuple[PriceBook, list[Charge]]) -> None:
    _, charged = made
    plain: dict[str, Fraction] = {}
    for charge in charged:
        if charge.contracted_cost is not None and charge.currency is not None:
            plain[charge.currency] = plain.get(charge.currency, Fraction(0)) + Fraction(charge.contracted_cost)
    finest = rollup(charged, LEVELS)
    assert money([finest.total]) == plain
    for depth in range(len(LEVELS)):
        coarse = rollup(charged, LEVELS[:depth])
        for group in coarse.groups:
            inside = [part for part in finest.groups if part.key[:depth] == group.key]
            assert money(inside) == money([group])
            assert sum(part.charges for part in inside) == group.charges
            assert sum(part.unpriced for part in inside) == group.unpriced
            assert sum(part.unreported for part in inside) == group.unreported


@SEEDED
@given(charged_books(), st.lists(st.sampled_from(Dimension), unique=True, max_size=5))
def test_any_combination_of_dimensions_sums_to_the_total(
    made: tuple[PriceBook, list[Charge]], by: list[Dimension]
) -> None:
    _, charged = made
    assert money(rollup(charged, by).groups) == money([rollup(charged).total])


@SEEDED
@given(charged_books())
def test_a_sum_says_how_all_of_it_is_known_and_for_what(made: tuple[PriceBook, list[Charge]]) -> None:
    _, charged = made
    total = rollup(charged).total
    for amount in total.money:
        assert sum(map(Fraction, amount.by_basis.values())) == Fraction(amount.contracted_cost)
        assert sum(map(Fraction, amount.by_kind.values())) == Fraction(amount.contracted_cost)
    for quantity in total.quantities:
        assert sum(map(Fraction, quantity.by_basis.values())) == Fraction(quantity.consumed_quantity)
    ranks = list(CostBasis)
    assert ranks.index(total.cost_basis) == max((ranks.index(amount.cost_basis) for amount in charged), default=0)


@SEEDED
@given(charged_books(), st.randoms())
def test_the_order_of_charges_does_not_matter(made: tuple[PriceBook, list[Charge]], dice: random.Random) -> None:
    _, charged = made
    mixed = list(charged)
    dice.shuffle(mixed)
    assert rollup(mixed, LEVELS) == rollup(charged, LEVELS)


@SEEDED
@given(charged_books())
def test_repricing_with_the_same_book_changes_nothing(made: tuple[PriceBook, list[Charge]]) -> None:
    book, charged = made
    again = reprice(charged, book)
    assert all(row.change == 0 for row in again.differences)
    amounts = {charge.id: charge.contracted_cost for charge in charged}
    assert {charge.id: charge.contracted_cost for charge in again.charges} == amounts


@SEEDED
@given(charged_books(), books())
def test_repricing_there_and_back_restores_the_bill(made: tuple[PriceBook, list[Charge]], other: PriceBook) -> None:
    book, charged = made
    there = reprice(charged, other)
    assert money([reprice(there.charges, book).repriced]) == money([there.billed])


@SEEDED
@given(books(), usages())
def test_the_usage_can_be_read_from_the_charges(book: PriceBook, usage: TokenUsage) -> None:
    restored = usage_of(charge_call(book, usage, origin()))
    assert restored.output_tokens == usage.output_tokens
    if usage.input_tokens is not None:
        assert replace(restored, basis=usage.basis) == replace(usage, reasoning_tokens=None)
