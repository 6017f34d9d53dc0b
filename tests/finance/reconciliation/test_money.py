"""The money of a bill and our charges: a different price is distinguished from different tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import Amount, Bill, BillFormat, BillRow, Count
from app.finance.reconciliation.comparison import rates_of, reconcile
from app.finance.reconciliation.reconciliation_schemas import reconciliation_view
from app.finance.reconciliation.reconciliation_texts import compared, not_compared, remarks, verdict
from app.finance.reconciliation.reconciliation_types import MoneyOutcome, Reconciliation
from app.pricing.charge_types import Charge, Meter, TokenUsage
from app.pricing.formula import charge_call
from tests.finance.reconciliation.billing import call
from tests.pricing.makers import NOW, OPENAI, agreement, origin, price_book

DAY = NOW.replace(hour=0)
# A fifth off the list's 1 / 0.10 / 4 per million.
BOOK = price_book(agreement(model="listed", discount_percent="20", per_million_tokens=None))
USED = TokenUsage(input_tokens=1_000_000, output_tokens=100_000, cached_tokens=400_000)
# 0.6 x 0.80 + 0.4 x 0.08 + 0.1 x 3.20, and the same by the list.
OURS, BY_LIST = Decimal("0.832"), Decimal("1.04")


def charges(usage: TokenUsage = USED, number: int = 1, **changes: Any) -> tuple[Charge, ...]:
    return charge_call(BOOK, usage, origin(execution_id=f"e-{number}", **({"model": "listed"} | changes)))


def day_bill(money: str | None, count: Count | None = None, **changes: Any) -> Bill:
    """A day of one model, with its money and its tokens as far as given."""
    until = DAY + timedelta(days=1)
    rows = () if count is None else (BillRow("line 2", "listed", DAY, until, count, "openai"),)
    amounts = () if money is None else (Amount("line 2", "listed", DAY, until, Decimal(money), "USD", "openai"),)
    values: dict[str, Any] = {"name": "bill", "format": BillFormat.CSV, "rows": rows, "amounts": amounts}
    return Bill(**values | {"counts": count is not None, "providers": frozenset({"openai"})} | changes)


def reconciled(bill: Bill, booked: Sequence[Charge] | None = None, used: TokenUsage = USED) -> Reconciliation:
    booked = charges() if booked is None else booked
    return reconcile([call(1, model="listed", usage=used)], bill, None, (), booked, rates_of(BOOK))


SAME = Count(1, 1_000_000, 400_000, 100_000)


def test_equal_money_agrees_and_says_what_was_compared() -> None:
    result = reconciled(day_bill("0.832", SAME))
    (cell,) = result.money
    assert (cell.outcome, cell.contracted, cell.listed, cell.difference) == (
        MoneyOutcome.AGREES,
        OURS,
        BY_LIST,
        Decimal(0),
    )
    assert result.agrees
    tokens, money = verdict(result).split(". ", maxsplit=1)
    assert tokens.endswith("they agree to the token")
    assert money == "0.832000 USD billed, 0.832000 by our prices; they agree to as many digits as the bill writes."
    assert compared(result)[2:] == ("input tokens", "output tokens", "cached tokens", "requests", "money in USD")
    assert not_compared(result) == ()


@pytest.mark.parametrize(("money", "agrees"), [("0.83", True), ("0.84", False), ("0.8", False), ("0.832001", False)])
def test_money_is_compared_as_far_as_the_bill_writes_it(money: str, *, agrees: bool) -> None:
    assert reconciled(day_bill(money)).agrees is agrees


def test_the_list_price_in_place_of_the_agreed_one_is_named() -> None:
    for count in (SAME, None):
        result = reconciled(day_bill("1.04", count))
        assert (result.money[0].outcome, result.agrees) == (MoneyOutcome.LIST_PRICE, False)
        assert "1 of 1 sums differ: billed at the list price, not at the agreed one." in verdict(result)


def test_another_price_with_equal_tokens_names_the_price_that_is_implied() -> None:
    result = reconciled(day_bill("0.932", SAME))
    (cell,) = result.money
    assert (cell.outcome, result.agrees, result.unexplained_tokens) == (MoneyOutcome.OTHER_PRICE, False, 0)
    assert cell.implied == {
        Meter.INPUT: Decimal("0.966667"),
        Meter.CACHED_INPUT: Decimal("0.33"),
        Meter.OUTPUT: Decimal("4.2"),
    }
    said = "billed at another price than ours, 1.1202 times ours: as if input at 0.966667 or cached input at 0.33 or"
    assert any(said in remark for remark in remarks(result))
    assert reconciliation_view(result).model_dump(mode="json")["money"][0]["implied_per_million"]["output"] == "4.2"


def test_one_kind_of_token_alone_has_one_price() -> None:
    used = TokenUsage(input_tokens=1_000_000, output_tokens=0, cached_tokens=0)
    result = reconciled(day_bill("1.20", Count(1, 1_000_000, 0, 0)), charges(used), used)
    assert result.money[0].implied == {Meter.INPUT: Decimal("1.2")}


def test_other_tokens_at_our_prices_are_a_difference_of_tokens() -> None:
    twice = Count(2, 2_000_000, 800_000, 200_000)
    result = reconciled(day_bill("1.664", twice))
    assert (result.money[0].outcome, result.money[0].expected) == (MoneyOutcome.TOKENS, 2 * OURS)
    assert result.unexplained_tokens > 0
    assert not result.agrees
    assert reconciled(day_bill("2.08", twice)).money[0].outcome is MoneyOutcome.LIST_PRICE
    assert reconciled(day_bill("3.00", twice)).money[0].outcome is MoneyOutcome.OTHER_PRICE


def test_where_the_bill_does_not_say_what_was_cached_ours_is_taken() -> None:
    result = reconciled(day_bill("0.832", Count(1, 1_000_000, None, 100_000)))
    assert result.agrees
    assert "cached tokens (not on this bill)" in not_compared(result)
    assert "they agree to the token, cached ones not compared." in verdict(result)
    unsure = Count(2, 2_000_000, None, 200_000)
    assert reconciled(day_bill("1.664", unsure)).money[0].outcome is MoneyOutcome.TOKENS
    assert reconciled(day_bill("9.9", unsure)).money[0].outcome is MoneyOutcome.OTHER_PRICE


def test_a_bill_of_money_alone() -> None:
    assert reconciled(day_bill("0.832")).agrees
    result = reconciled(day_bill("0.9"))
    assert (result.money[0].outcome, result.agrees) == (MoneyOutcome.DIFFERS, False)
    assert (result.cells, result.findings) == ((), ())
    assert "tokens (not on this bill)" in not_compared(result)
    assert "they agree" not in verdict(result)


def test_what_is_estimated_may_be_off() -> None:
    guessed = [*charges(), *charges(replace(USED, basis=UsageBasis.ESTIMATED), 2)]
    assert reconciled(day_bill("0.90"), guessed).money[0].outcome is MoneyOutcome.ESTIMATES
    assert reconciled(day_bill("0.80"), guessed).money[0].outcome is MoneyOutcome.DIFFERS, "less than what was reported"
    assert reconciled(day_bill("9.90"), guessed).money[0].outcome is MoneyOutcome.DIFFERS


def test_money_that_only_one_side_has() -> None:
    other = replace(day_bill("0.5").amounts[0], model="text-embedding-3-small")
    result = reconciled(day_bill(None, amounts=(other,), counts=False))
    assert [cell.outcome for cell in result.money] == [MoneyOutcome.NOT_BILLED, MoneyOutcome.NOT_OURS]
    assert not result.agrees


def test_models_together() -> None:
    """OpenAI's costs without group_by name no model."""
    both = [*charges(), *charges(number=2)]
    whole = replace(day_bill("1.664").amounts[0], model="")
    assert reconciled(day_bill(None, amounts=(whole,), counts=False), both).agrees
    assert not reconciled(day_bill(None, amounts=(replace(whole, money=Decimal(2)),), counts=False), both).agrees


def test_amounts_that_cannot_be_compared_are_named_and_do_not_fail() -> None:
    euros = replace(day_bill("0.832").amounts[0], currency="EUR")
    result = reconciled(day_bill(None, SAME, amounts=(euros,)))
    assert (result.money[0].outcome, result.agrees) == (MoneyOutcome.OTHER_CURRENCY, True)
    assert any("no exchange rate" in reason for reason in not_compared(result))
    assert "EUR on the bill could not be compared." in verdict(result)
    unpriced = [*charges(model="unheard-of")]
    result = reconciled(
        day_bill(None, amounts=(replace(euros, model="unheard-of", currency="USD"),), counts=False), unpriced
    )
    assert (result.money[0].outcome, result.agrees) == (MoneyOutcome.UNPRICED, True)
    assert "money (not on this bill)" in not_compared(reconciled(day_bill(None, SAME)))


def test_charges_of_other_providers_days_and_unknown_ones_are_not_of_this_bill() -> None:
    others = [
        *charges(),
        *charges(number=2, provider="conversation.anthropic"),
        *charges(number=3, provider=""),
        *charges(number=4, at=NOW + timedelta(days=1)),
    ]
    assert reconciled(day_bill("0.832"), others).agrees


def test_requests_are_summed_by_day_and_a_dated_model_is_ours() -> None:
    at = NOW + timedelta(seconds=0.5)
    half = Amount("line 2", "listed-2026-01-31", at, at, Decimal("0.416"), "USD", "openai")
    result = reconciled(day_bill(None, amounts=(half, half), counts=False))
    assert [(cell.model, cell.since, cell.outcome) for cell in result.money] == [("listed", DAY, MoneyOutcome.AGREES)]


def test_prices_with_tiers_are_compared_in_sum_alone() -> None:
    used = TokenUsage(input_tokens=2000, output_tokens=100, cached_tokens=0)
    booked = charge_call(BOOK, used, origin(model="tiered"))
    ours = sum((charge.contracted_cost for charge in booked if charge.contracted_cost), Decimal(0))
    assert rates_of(BOOK)(OPENAI, "tiered", NOW) is None
    amount = replace(day_bill("1").amounts[0], model="tiered", money=ours)
    assert reconciled(day_bill(None, amounts=(amount,), counts=False), booked).agrees
