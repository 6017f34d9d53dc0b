"""The same usage under another price book: both sums, and unchanged charges."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from app.finance.repricing import reprice
from app.pricing.charge_types import Charge, CostBasis, Meter, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from tests.pricing.makers import agreement, origin, price_book, tariff

OLD = price_book(agreement(), agreement(id="other", model="model-b"))
TIER = {"above_input_tokens": 1000, "per_million_tokens": {"input": "10", "output": "10"}}
NEW = price_book(
    agreement(per_million_tokens={"input": "1", "output": "4"}, tiers=[TIER]),
    infrastructure=[tariff(compute_per_second="0.00004")],
    retention_months="12",
)


def billed() -> list[Charge]:
    work = Work(Quantity(Decimal(10)), retained_bytes=Quantity(Decimal(10**9)))
    return [
        *charge_call(OLD, TokenUsage(input_tokens=1000, output_tokens=100, cached_tokens=400), origin()),
        *charge_call(
            OLD, TokenUsage(input_tokens=1001, output_tokens=0, cached_tokens=0), origin(number=2), wasted=True
        ),
        *charge_call(OLD, TokenUsage(input_tokens=10**6, output_tokens=0, cached_tokens=0), origin(model="model-b")),
        *charge_work(OLD, work, origin()),
    ]


def test_there_is_a_difference_for_each_model_and_kind() -> None:
    repricing = reprice(billed(), NEW)
    rows = {(row.key[0], row.key[2]): (row.billed, row.repriced, row.change) for row in repricing.differences}
    assert rows == {
        ("model", "model-a"): (Decimal("0.0022"), Decimal("0.0014"), Decimal("-0.0008")),
        ("model", "model-b"): (Decimal(2), Decimal(0), Decimal(-2)),  # has no price in the new book: see below
        ("wasted", "model-a"): (Decimal("0.002002"), Decimal("0.01001"), Decimal("0.008008")),
        ("compute", ""): (Decimal("0.0002"), Decimal("0.0004"), Decimal("0.0002")),
        ("orchestration", ""): (Decimal("0.25"), Decimal("0.25"), Decimal(0)),  # kept as long as was billed
    }


def test_a_model_without_a_price_in_the_other_book_is_unpriced() -> None:
    repricing = reprice(billed(), NEW)
    row = next(row for row in repricing.differences if row.key[2] == "model-b")
    assert (row.billed_known, row.repriced_known) == (CostBasis.REPORTED, CostBasis.UNPRICED)
    assert (repricing.billed.unpriced, repricing.repriced.unpriced) == (0, 3)


def test_the_charges_are_not_changed() -> None:
    before = billed()
    reprice(before, NEW)
    assert before == billed()


def test_the_new_charges_name_the_new_book_and_keep_the_time() -> None:
    repricing = reprice(billed(), NEW)
    assert {charge.book_digest for charge in repricing.charges} == {NEW.digest} == {repricing.book_digest}
    assert [charge.at for charge in repricing.charges] == [charge.at for charge in billed()]


def test_corrected_usage_is_priced_as_it_was_corrected() -> None:
    original = charge_call(OLD, TokenUsage(input_tokens=1000, output_tokens=0, cached_tokens=0), origin())
    wrong = original[0]
    assert wrong.contracted_cost is not None
    back = replace(wrong, consumed_quantity=Decimal(-1000), contracted_cost=-wrong.contracted_cost, correction=1)
    again = replace(wrong, consumed_quantity=Decimal(750), contracted_cost=Decimal("0.0015"), correction=2)
    assert (back.correction_of, again.correction_of) == (wrong.id, back.id)
    repricing = reprice([*original, back, again], OLD)
    assert repricing.billed.money[0].contracted_cost == repricing.repriced.money[0].contracted_cost == Decimal("0.0015")
    assert repricing.billed.charges == len(repricing.charges) == len(original)
    gone = reprice([*original, back], OLD)
    assert gone.repriced.money[0].contracted_cost == Decimal(0)


def test_two_identical_calls_stay_two_calls() -> None:
    twice = [
        *charge_call(OLD, TokenUsage(input_tokens=600, output_tokens=1, cached_tokens=0), origin()),
        *charge_call(OLD, TokenUsage(input_tokens=600, output_tokens=1, cached_tokens=0), origin()),
    ]
    repricing = reprice(twice, NEW)
    inputs = [charge.consumed_quantity for charge in repricing.charges if charge.meter is Meter.INPUT]
    assert inputs == [Decimal(600), Decimal(600)]  # and not one of 1,200, above the tier
