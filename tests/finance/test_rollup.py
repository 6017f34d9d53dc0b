"""Sums by dimension: their basis, their missing parts, and wasted work apart."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from app.domain.models import UsageBasis
from app.finance.rollup import Dimension, rollup
from app.pricing.charge_types import Charge, CostBasis, Meter, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from tests.pricing.makers import NOW, agreement, origin, price_book

BOOK = price_book(agreement(), agreement(id="euro", model="model-e", currency="EUR"))


def charged() -> list[Charge]:
    late = NOW + timedelta(hours=12)  # the next day, in UTC
    return [
        *charge_call(BOOK, TokenUsage(input_tokens=1000, output_tokens=100, cached_tokens=0), origin()),
        *charge_call(
            BOOK,
            TokenUsage(input_tokens=500, output_tokens=0, cached_tokens=0, basis=UsageBasis.ESTIMATED),
            origin(number=2),
            wasted=True,
        ),
        *charge_call(
            BOOK,
            TokenUsage(input_tokens=1000, output_tokens=0, cached_tokens=0),
            origin(model="model-e", stage="draft_refund", tenant="globex"),
        ),
        *charge_call(BOOK, TokenUsage(input_tokens=70, output_tokens=7), origin(model="unknown", stage="draft_refund")),
        *charge_call(BOOK, TokenUsage(input_tokens=None, output_tokens=100), origin(at=late)),
        *charge_work(BOOK, Work(Quantity(Decimal(2), UsageBasis.ESTIMATED)), origin(tool="get_account")),
    ]


def test_the_total_shows_its_basis_and_its_missing_parts() -> None:
    total = rollup(charged()).total
    euro, dollar = total.money
    assert (euro.currency, euro.contracted_cost) == ("EUR", Decimal("0.002"))
    assert (dollar.currency, dollar.contracted_cost) == ("USD", Decimal("0.00464"))
    assert dollar.by_basis == {
        CostBasis.REPORTED: Decimal("0.0036"),
        CostBasis.ESTIMATED: Decimal("0.00104"),
    }
    assert dollar.by_kind == {"model": Decimal("0.0036"), "wasted": Decimal("0.001"), "compute": Decimal("0.00004")}
    assert (total.charges, total.cost_basis, total.unreported, total.unpriced) == (14, CostBasis.UNPRICED, 1, 2)


def test_tokens_of_unpriced_models_are_counted_and_unreported_ones_named() -> None:
    plain, cached, output = rollup(charged()).total.tokens
    assert (plain.meter, plain.consumed_quantity, plain.missing) == (Meter.INPUT, Decimal(2570), 1)
    assert plain.by_basis == {UsageBasis.REPORTED: Decimal(2070), UsageBasis.ESTIMATED: Decimal(500)}
    assert (cached.meter, cached.consumed_quantity) == (Meter.CACHED_INPUT, Decimal(0))
    assert output.consumed_quantity == 207


def test_groups_come_in_the_order_of_their_keys() -> None:
    sums = rollup(charged(), [Dimension.TENANT, Dimension.STAGE, Dimension.MODEL])
    assert [group.key for group in sums.groups] == [
        ("acme", "classify", ""),
        ("acme", "classify", "model-a"),
        ("acme", "draft_refund", "unknown"),
        ("globex", "draft_refund", "model-e"),
    ]


def test_days_are_utc_and_wasted_is_a_kind() -> None:
    days = rollup(charged(), [Dimension.DAY]).groups
    assert [group.key for group in days] == [("2026-11-22",), ("2026-11-23",)]
    kinds = rollup(charged(), [Dimension.KIND]).groups
    assert [group.key for group in kinds] == [("compute",), ("model",), ("wasted",)]


def test_every_dimension_can_be_grouped_by() -> None:
    keys = {by: {group.key for group in rollup(charged(), [by]).groups} for by in Dimension}
    assert keys[Dimension.PRICE_BOOK] == {(BOOK.digest,)}
    assert keys[Dimension.TOOL] == {("",), ("get_account",)}
    assert keys[Dimension.OUTCOME] == {("refunded",)}
    assert keys[Dimension.PRICE] == {("",), ("prices.yaml/agreed",), ("prices.yaml/euro",), ("prices.yaml/cloud",)}


def test_nothing_costs_nothing_and_nothing_is_missing() -> None:
    sums = rollup([], [Dimension.TENANT])
    assert sums.groups == ()
    assert (sums.total.money, sums.total.cost_basis) == ((), CostBasis.REPORTED)
