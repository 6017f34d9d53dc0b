"""Prices as rows for people."""

from __future__ import annotations

import datetime as dt
from datetime import timedelta
from decimal import Decimal

from app.pricing.charge_types import Meter, Mode, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from app.pricing.show import billed_prices, infrastructure_rows, price_rows
from tests.pricing.makers import NOW, OPENAI, agreement, origin, price_book, tariff


def test_each_tier_has_its_row_with_both_prices() -> None:
    book = price_book(
        agreement(
            id="cut", model="tiered", per_million_tokens=None, discount_percent="10", checked=dt.date(2026, 11, 2)
        )
    )
    base, tier = price_rows(book, [(OPENAI, "tiered")], NOW)
    assert (base.above, tier.above) == (None, 1000)
    assert base.contracted == {
        Meter.INPUT: Decimal("0.9"),
        Meter.CACHED_INPUT: Decimal("0.09"),
        Meter.OUTPUT: Decimal("3.6"),
    }
    assert tier.contracted == {
        Meter.INPUT: Decimal("1.8"),
        Meter.CACHED_INPUT: Decimal("0.09"),
        Meter.OUTPUT: Decimal("7.2"),
    }
    assert tier.listed == {Meter.INPUT: Decimal(2), Meter.CACHED_INPUT: Decimal("0.1"), Meter.OUTPUT: Decimal(8)}
    assert tier.source.startswith("a contract; on genai-prices")
    assert tier.checked == dt.date(2026, 11, 1)  # the older look counts


def test_a_model_without_a_price_has_a_row_that_says_why() -> None:
    rows = price_rows(price_book(agreement()), [(OPENAI, "model-a"), (OPENAI, "other")], NOW, list(Mode))
    assert [(row.model, row.mode, bool(row.problem)) for row in rows] == [
        ("model-a", Mode.STANDARD, False),
        ("model-a", Mode.BATCH, True),
        ("other", Mode.STANDARD, True),
        ("other", Mode.BATCH, True),
    ]
    assert rows[1].contracted is None
    assert "give agreed a `batch:`" in rows[1].problem


def test_infrastructure_has_a_row_for_each_line() -> None:
    rows = infrastructure_rows(price_book(), NOW)
    assert [(row.meter, row.contracted_unit_price, row.per) for row in rows] == [
        (Meter.COMPUTE, Decimal("0.00002"), Decimal(1)),
        (Meter.STEP_WRITES, Decimal("1.25"), Decimal(10**6)),
        (Meter.RETAINED_BYTES, Decimal("0.25"), Decimal(1)),
        (Meter.LOG_BYTES, Decimal("0.50"), Decimal(1)),
    ]
    assert infrastructure_rows(price_book(infrastructure=[]), NOW) == ()


def test_billed_prices_come_from_the_charges_alone() -> None:
    old, new = price_book(agreement()), price_book(infrastructure=[tariff(id="other")])
    later = NOW + timedelta(hours=1)
    charges = [
        *charge_call(old, TokenUsage(input_tokens=1000, output_tokens=0, cached_tokens=0), origin()),
        *charge_call(old, TokenUsage(input_tokens=500, output_tokens=0, cached_tokens=0), origin(at=later)),
        *charge_call(old, TokenUsage(input_tokens=500, output_tokens=0, cached_tokens=0), origin(model="unknown")),
        *charge_work(new, Work(Quantity(Decimal(1))), origin()),
    ]
    cached, plain, output, compute = billed_prices(charges)
    assert (plain.meter, plain.contracted_unit_price, plain.charges, plain.contracted_cost) == (
        Meter.INPUT,
        Decimal(2),
        2,
        Decimal("0.003"),
    )
    assert (plain.first, plain.last, plain.book_digest) == (NOW, later, old.digest)
    assert (cached.meter, output.meter) == (Meter.CACHED_INPUT, Meter.OUTPUT)
    assert (compute.price_id, compute.book_digest) == ("prices.yaml/other", new.digest)
