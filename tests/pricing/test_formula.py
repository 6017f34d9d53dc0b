"""The cost formula: what each line costs, where a tier begins, and that what is not known is never zero."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from genai_prices import types

from app.domain.models import UsageBasis
from app.domain.money import shown
from app.pricing.charge_types import (
    NOT_REPORTED,
    UNREPORTED,
    CostBasis,
    CostKind,
    Meter,
    Mode,
    Quantity,
    TokenUsage,
    Unit,
    Work,
)
from app.pricing.formula import CallPrice, Priced, Unpriced, charge_call, charge_work, price_call, price_work
from app.pricing.list_prices import ListPrices
from tests.pricing.makers import NOW, OPENAI, agreement, model, origin, price_book, prices, tariff

TIERS = [{"above_input_tokens": 1000, "per_million_tokens": {"input": "4", "cached_input": "1", "output": "16"}}]


def priced(usage: TokenUsage, mode: Mode = Mode.STANDARD, **changes: object) -> CallPrice:
    result = price_call(price_book(agreement(**changes)), usage, at=NOW, model="model-a", provider=OPENAI, mode=mode)
    assert isinstance(result, CallPrice)
    return result


def lines(result: Priced | Unpriced) -> dict[Meter, tuple[Decimal | None, Decimal | None]]:
    return {line.meter: (line.consumed_quantity, line.contracted_cost) for line in result.lines}


def test_each_kind_of_token_is_priced_once() -> None:
    usage = TokenUsage(
        input_tokens=1000, output_tokens=200, cached_tokens=400, cache_write_tokens=100, reasoning_tokens=150
    )
    per_million = {"input": "2", "cached_input": "0.50", "cache_write": "2.50", "output": "8"}
    result = priced(usage, per_million_tokens=per_million)
    assert lines(result) == {
        Meter.INPUT: (Decimal(500), Decimal("0.001")),
        Meter.CACHED_INPUT: (Decimal(400), Decimal("0.0002")),
        Meter.CACHE_WRITE: (Decimal(100), Decimal("0.00025")),
        Meter.OUTPUT: (Decimal(200), Decimal("0.0016")),
    }
    assert result.contracted_cost == Decimal("0.00305")
    assert result.cost_basis is CostBasis.REPORTED


def test_reasoning_is_inside_the_output() -> None:
    assert (
        priced(TokenUsage(input_tokens=1, output_tokens=200, reasoning_tokens=150)).contracted_cost
        == priced(TokenUsage(input_tokens=1, output_tokens=200)).contracted_cost
    )


@pytest.mark.parametrize(
    ("tokens", "tier", "amount"),
    [(999, None, "0.001998"), (1000, None, "0.002"), (1001, 1000, "0.004004"), (0, None, "0")],
)
def test_a_token_above_the_tiers_start_moves_the_whole_request(tokens: int, tier: int | None, amount: str) -> None:
    result = priced(
        TokenUsage(input_tokens=tokens, output_tokens=0, cached_tokens=0, cache_write_tokens=0), tiers=TIERS
    )
    assert (result.tier, result.contracted_cost) == (tier, Decimal(amount))


def test_a_tier_counts_all_input_and_moves_all_lines() -> None:
    below, above = (
        priced(TokenUsage(input_tokens=1000, output_tokens=100, cached_tokens=500, cache_write_tokens=0), tiers=TIERS),
        priced(TokenUsage(input_tokens=1001, output_tokens=100, cached_tokens=501, cache_write_tokens=0), tiers=TIERS),
    )
    assert below.contracted_cost == Decimal("0.00205")
    assert above.contracted_cost == Decimal("0.004101")  # 500 at 4, 501 at 1, 100 at 16
    assert above.price_id == "prices.yaml/agreed>1000"


def test_a_kind_without_a_price_of_its_own_costs_as_input() -> None:
    result = priced(
        TokenUsage(input_tokens=1000, output_tokens=0, cached_tokens=400, cache_write_tokens=100),
        per_million_tokens={"input": "2", "output": "8"},
    )
    assert result.contracted_cost == Decimal("0.002")
    assert [line.contracted_unit_price for line in result.lines] == [2, 2, 2, 8]


def test_a_tier_that_leaves_a_kind_out_prices_it_as_the_tiers_input() -> None:
    tiers = [{"above_input_tokens": 1000, "per_million_tokens": {"input": "4", "output": "16"}}]
    result = priced(
        TokenUsage(input_tokens=1001, output_tokens=0, cached_tokens=1001, cache_write_tokens=0), tiers=tiers
    )
    assert result.contracted_cost == Decimal("0.004004")


def test_discounts_multiply_and_the_list_stays() -> None:
    result = priced(
        TokenUsage(input_tokens=10**6, output_tokens=0, cached_tokens=0),
        Mode.BATCH,
        discount_percent="10",
        batch={"discount_percent": "50"},
    )
    assert (result.contracted_cost, result.list_cost) == (Decimal("0.9"), Decimal(1))
    assert result.price_id == "prices.yaml/agreed/batch"


def test_a_kind_that_the_list_does_not_price_is_listed_at_our_own_price() -> None:
    listed = ListPrices(
        [types.Provider(id="openai", name="OpenAI", api_pattern="-", models=[model("e", prices(input_mtok="1"))])], "1"
    )
    book = price_book(agreement(model="e"), listed=listed)
    result = price_call(
        book, TokenUsage(input_tokens=10**6, output_tokens=10**6, cached_tokens=0), at=NOW, model="e", provider=OPENAI
    )
    assert isinstance(result, CallPrice)
    assert (result.contracted_cost, result.list_cost) == (Decimal(10), Decimal(9))
    unagreed = price_call(
        price_book(listed=listed), TokenUsage(input_tokens=10, output_tokens=1), at=NOW, model="e", provider=OPENAI
    )
    assert unagreed.cost_basis is CostBasis.UNPRICED  # its output


def test_a_batch_may_have_prices_and_tiers_of_its_own() -> None:
    batch = {"per_million_tokens": {"input": "1", "output": "3"}, "tiers": TIERS}
    result = [
        priced(
            TokenUsage(input_tokens=tokens, output_tokens=0, cached_tokens=0), Mode.BATCH, batch=batch
        ).contracted_cost
        for tokens in (1000, 1001)
    ]
    assert result == [Decimal("0.001"), Decimal("0.004004")]


def test_a_reported_zero_is_a_line_and_what_is_not_reported_is_none() -> None:
    assert [
        line.meter
        for line in priced(TokenUsage(input_tokens=10, output_tokens=1, cached_tokens=0, cache_write_tokens=0)).lines
    ] == [*list(Meter)[:4]]
    assert [line.meter for line in priced(TokenUsage(input_tokens=10, output_tokens=1)).lines] == [
        Meter.INPUT,
        Meter.OUTPUT,
    ]


def test_tokens_that_are_not_reported_have_no_amount() -> None:
    result = priced(TokenUsage(input_tokens=None, output_tokens=100))
    assert lines(result) == {Meter.INPUT: (None, None), Meter.OUTPUT: (Decimal(100), Decimal("0.0008"))}
    assert (result.contracted_cost, result.cost_basis) == (Decimal("0.0008"), CostBasis.UNREPORTED)
    nothing = priced(NOT_REPORTED)
    assert nothing.contracted_cost is None
    assert nothing.cost_basis is CostBasis.UNREPORTED


def test_unreported_counts_are_not_known() -> None:
    assert priced(TokenUsage(input_tokens=100, output_tokens=100, basis=UsageBasis.UNREPORTED)).contracted_cost is None


def test_an_unreported_split_makes_the_input_an_estimate_where_it_changes_the_price() -> None:
    result = priced(TokenUsage(input_tokens=1000, output_tokens=100))
    assert [line.usage_basis for line in result.lines] == [UsageBasis.ESTIMATED, UsageBasis.REPORTED]
    assert result.unsplit == (Meter.CACHED_INPUT,)
    assert result.contracted_cost == Decimal("0.0028")
    same = priced(
        TokenUsage(input_tokens=1000, output_tokens=100),
        per_million_tokens={"input": "2", "cached_input": "2", "output": "8"},
    )
    assert (same.cost_basis, same.unsplit) == (CostBasis.REPORTED, ())
    none = priced(TokenUsage(input_tokens=0, output_tokens=100))
    assert (none.cost_basis, none.unsplit) == (CostBasis.REPORTED, ())


def test_without_the_input_the_tier_is_not_known() -> None:
    assert (
        priced(TokenUsage(input_tokens=None, output_tokens=100), tiers=TIERS).lines[1].usage_basis
        is UsageBasis.ESTIMATED
    )


def test_an_estimate_stays_one() -> None:
    assert (
        priced(TokenUsage(input_tokens=1000, output_tokens=100, cached_tokens=0, basis=UsageBasis.ESTIMATED)).cost_basis
        is CostBasis.ESTIMATED
    )


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"cached_tokens": 11}, "cached tokens exceed the input"),
        ({"cached_tokens": 6, "cache_write_tokens": 5}, "cached tokens exceed the input"),
        ({"reasoning_tokens": 2}, "reasoning exceeds the output"),
        ({"cache_write_tokens": -1}, "a count is below zero"),
    ],
)
def test_usage_that_cannot_be_is_refused(counts: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TokenUsage(input_tokens=10, output_tokens=1), **counts)  # type: ignore[arg-type]


def test_a_model_without_a_price_is_unpriced_and_says_what_to_do() -> None:
    result = price_call(
        price_book(),
        TokenUsage(input_tokens=10, output_tokens=1),
        at=NOW,
        model="llama3.2",
        provider="conversation.ollama",
    )
    assert isinstance(result, Unpriced)
    assert not hasattr(result, "amount")
    assert result.cost_basis is CostBasis.UNPRICED
    assert str(result) == (
        "unpriced: model llama3.2 of provider conversation.ollama is not in genai-prices 1 under that name; "
        "add an agreement for provider conversation.ollama and model llama3.2 to config/prices.yaml"
    )
    assert lines(result) == {Meter.INPUT: (Decimal(10), None), Meter.OUTPUT: (Decimal(1), None)}


def test_work_is_priced_line_by_line() -> None:
    work = Work(
        Quantity(Decimal("2.5")),
        Quantity(Decimal(9)),
        Quantity(Decimal(4_000), UsageBasis.ESTIMATED),
        Quantity(Decimal(1_000)),
    )
    result = price_work(price_book(retention_months="1.5"), work, at=NOW)
    assert isinstance(result, Priced)
    assert lines(result) == {
        Meter.COMPUTE: (Decimal("2.5"), Decimal("0.00005")),
        Meter.STEP_WRITES: (Decimal(9), Decimal("0.00001125")),
        Meter.RETAINED_BYTES: (Decimal("0.000006"), Decimal("0.0000015")),
        Meter.LOG_BYTES: (Decimal("0.000001"), Decimal("0.0000005")),
    }
    assert result.contracted_cost == Decimal("0.00006325")
    assert result.cost_basis is CostBasis.ESTIMATED
    assert result.price_id == "prices.yaml/cloud"


def test_work_that_was_not_measured_has_no_amount_and_work_elsewhere_no_line() -> None:
    result = price_work(price_book(), Work(active_seconds=UNREPORTED, step_writes=Quantity(Decimal(0))), at=NOW)
    assert lines(result) == {Meter.COMPUTE: (None, None), Meter.STEP_WRITES: (Decimal(0), Decimal(0))}
    assert result.cost_basis is CostBasis.UNREPORTED


def test_work_before_any_tariff_is_unpriced() -> None:
    result = price_work(price_book(infrastructure=[]), Work(Quantity(Decimal(1))), at=NOW)
    assert isinstance(result, Unpriced)
    assert "no infrastructure price holds at 2026-11-22 12:00 UTC" in str(result)


@pytest.mark.parametrize(
    ("value", "known"),
    [(None, UsageBasis.REPORTED), (Decimal(1), UsageBasis.UNREPORTED), (Decimal(-1), UsageBasis.REPORTED)],
)
def test_a_quantity_is_known_or_it_is_not(value: Decimal | None, known: UsageBasis) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Quantity(value, known)


def test_a_charge_carries_all_that_it_is_attributed_by() -> None:
    book = price_book(agreement())
    charge = charge_call(
        book, TokenUsage(input_tokens=1000, output_tokens=200, cached_tokens=400), origin(), wasted=True
    )[1]
    assert (charge.task_id, charge.tenant, charge.stage, charge.turn) == ("acme:T-1", "acme", "classify", 1)
    assert (charge.kind, charge.meter, charge.unit) == (CostKind.MODEL, Meter.CACHED_INPUT, Unit.TOKENS)
    assert (charge.consumed_quantity, charge.contracted_unit_price, charge.contracted_cost) == (
        Decimal(400),
        Decimal("0.50"),
        Decimal("0.0002"),
    )
    assert (charge.currency, charge.price_id) == ("USD", "prices.yaml/agreed")
    assert (charge.book_digest, charge.wasted, charge.correction_of) == (book.digest, True, None)


def test_a_charge_of_an_unpriced_model_has_tokens_and_no_money() -> None:
    charge = charge_call(price_book(), TokenUsage(input_tokens=10, output_tokens=1), origin())[0]
    assert (charge.consumed_quantity, charge.contracted_cost, charge.currency, charge.price_id) == (
        Decimal(10),
        None,
        None,
        None,
    )
    assert charge.cost_basis is CostBasis.UNPRICED
    assert charge.usage_basis is UsageBasis.REPORTED


def test_a_charge_of_work_is_no_models() -> None:
    charge = charge_work(price_book(), Work(Quantity(Decimal(1))), origin())[0]
    assert (charge.model, charge.provider, charge.kind) == ("", "", CostKind.COMPUTE)


def test_a_charges_id_names_what_it_is_for() -> None:
    book, other = price_book(agreement()), price_book(agreement(), infrastructure=[tariff(id="other")])
    first = charge_call(book, TokenUsage(input_tokens=1000, output_tokens=200, cached_tokens=400), origin())
    assert [
        charge.id
        for charge in charge_call(other, TokenUsage(input_tokens=1, output_tokens=2, cached_tokens=1), origin())
    ] == [charge.id for charge in first]
    again = charge_call(book, TokenUsage(input_tokens=1000, output_tokens=200, cached_tokens=400), origin(number=2))
    assert len({charge.id for charge in (*first, *again)}) == 6


def test_money_is_rounded_where_it_is_shown() -> None:
    assert [shown(Decimal(text), 4) for text in ("0.00005", "0.00015", "12345678901234567890123456789.00001")] == [
        "0.0000",
        "0.0002",
        "12345678901234567890123456789.0000",
    ]
