"""`price check`: each mistake in an otherwise good book is found, with its place, value and remedy."""

from __future__ import annotations

import datetime as dt
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.pricing import book, litellm_prices
from app.pricing.charge_types import Meter
from app.pricing.check import ModelInUse, PriceFinding, Severity, check
from app.pricing.litellm_prices import LiteLLMPrices
from tests.pricing.makers import NOW, OPENAI, PROJECT_FILE, agreement, price_book, tariff

RATES = {"input": "1", "cached_input": "0.1", "output": "4"}
JULY, SEPTEMBER = dt.date(2026, 7, 1), dt.date(2026, 9, 1)


def findings_of(
    *agreements: dict[str, Any], in_use: tuple[ModelInUse, ...] = (), **changes: Any
) -> tuple[PriceFinding, ...]:
    return check(price_book(*agreements, **changes), in_use, NOW)


def priced(**changes: str) -> dict[str, Any]:
    """An agreement on a model of the list, at list prices except for the changes."""
    return agreement(model="listed", per_million_tokens=RATES | changes)


def only(findings: tuple[PriceFinding, ...], severity: Severity) -> PriceFinding:
    assert [finding.severity for finding in findings] == [severity], findings
    return findings[0]


def test_a_good_book_has_no_findings() -> None:
    assert findings_of(priced(), in_use=((OPENAI, "listed"), (OPENAI, "tiered"))) == ()


def test_the_projects_own_book_is_good_on_the_day_it_was_made() -> None:
    made = datetime(2026, 11, 22, tzinfo=UTC)
    in_use = [(OPENAI, "sandbox-small"), (OPENAI, "gpt-5-mini"), ("conversation.anthropic", "claude-sonnet-4-5")]
    assert check(book.load(PROJECT_FILE), in_use, made, litellm_prices.load()) == ()


@pytest.mark.parametrize("factor", ["0.000001", "0.001", "1000", "1000000"])
def test_a_price_for_another_number_of_tokens_is_found_against_the_list(factor: str) -> None:
    wrong = {name: format(Decimal(price) * Decimal(factor), "f") for name, price in RATES.items()}
    findings = findings_of(priced(**wrong))
    assert {finding.severity for finding in findings} == {Severity.ERROR}
    units = [finding for finding in findings if "for another number of tokens" in finding.problem]
    assert [finding.value.split()[0] for finding in units] == ["input", "cached_input", "output"]
    assert {finding.remedy for finding in units} == {"give the price of a million tokens"}


def test_one_wrong_price_among_right_ones_is_found() -> None:
    finding = findings_of(priced(output="0.004"))[0]
    assert finding.value == "output 0.004, listed 4"


def test_a_pattern_is_compared_with_the_most_similar_model() -> None:
    wrong = agreement(model="tiered-*", per_million_tokens={"input": "0.001", "output": "0.004"})
    assert {finding.value for finding in findings_of(wrong)} == {"input 0.001, tiered 1", "output 0.004, tiered 4"}


def test_a_similar_model_may_be_cheaper_but_the_same_one_not() -> None:
    dear = {"input": "3", "output": "12"}
    assert findings_of(agreement(model="tiered-*", per_million_tokens=dear)) == ()
    assert len(findings_of(agreement(model="tiered", per_million_tokens=dear))) == 2


def test_equal_prices_are_no_mistake() -> None:
    assert (
        findings_of(agreement(model="own", per_million_tokens={"input": "1", "cached_input": "1", "output": "1"})) == ()
    )


def test_a_plausible_discount_is_not_a_unit_mistake() -> None:
    assert findings_of(priced(input="0.1", cached_input="0.01", output="0.4")) == ()


def test_a_price_without_a_similar_model_is_compared_with_the_limits() -> None:
    lonely = agreement(provider="*", model="own-*", per_million_tokens={"input": "0.0000004", "output": "1.60"})
    finding = only(findings_of(lonely), Severity.ERROR)
    assert (finding.value, finding.problem) == ("0.0000004", "agreed: no model costs that per million input tokens")


def test_other_currencies_are_not_compared_with_dollars() -> None:
    assert (
        findings_of(agreement(model="listed", currency="KRW", per_million_tokens={"input": "1400", "output": "56000"}))
        == ()
    )


@pytest.mark.parametrize(
    ("changed", "problem", "value"),
    [
        (priced(cached_input="1.01"), "cached input costs more than uncached", "1.01 > 1"),
        (priced(input="4.5"), "input costs more than output", "4.5 > 4"),
        (priced(output="5"), "the price is above the list price", "output 5, listed 4"),
        (priced(input="0", cached_input="0"), "input cost nothing", "0"),
        (priced() | {"discount_percent": "100"}, "makes everything free", "100"),
        (priced() | {"batch": {"per_million_tokens": {"input": "2", "output": "1"}}}, "a batch costs more", "input 2"),
    ],
)
def test_prices_that_look_swapped_or_implausible_are_warnings(
    changed: dict[str, Any], problem: str, value: str
) -> None:
    matching = [finding for finding in findings_of(changed) if problem in finding.problem]
    assert [(finding.severity, finding.value) for finding in matching] == [(Severity.WARNING, value)]


def test_a_batch_price_for_another_number_of_tokens_is_found() -> None:
    changed = priced() | {"batch": {"per_million_tokens": {"input": "0.0005", "output": "2"}}}
    assert only(findings_of(changed), Severity.ERROR).value == "input 0.0005, single 1"


def test_tiers_are_checked_too() -> None:
    tier = {"above_input_tokens": 9, "per_million_tokens": {"input": "9000", "output": "9001"}}
    problems = [
        finding.problem for finding in findings_of(priced() | {"tiers": [tier]}) if finding.severity is Severity.ERROR
    ]
    assert problems[0] == "agreed: no model costs that per million input tokens"


def test_an_hourly_rate_in_place_of_one_per_second_is_found() -> None:
    finding = only(findings_of(infrastructure=[tariff(compute_per_second="0.05")]), Severity.WARNING)
    assert (finding.value, finding.remedy) == ("0.05", "give the price per second")


def test_overlapping_prices_are_an_error_with_a_remedy() -> None:
    findings = findings_of(priced() | {"id": "old"}, priced() | {"id": "new", "from": JULY})
    finding = only(findings, Severity.ERROR)
    assert finding.value == "old ends never, new starts 2026-07-01"
    assert finding.remedy == "give old `to: 2026-07-01`"


def test_adjoining_periods_are_correct_and_a_gap_is_a_warning() -> None:
    old = priced() | {"id": "old", "to": JULY}
    assert findings_of(old, priced() | {"id": "new", "from": JULY}) == ()
    finding = only(findings_of(old, priced() | {"id": "new", "from": SEPTEMBER}), Severity.WARNING)
    assert finding.value == "old ends 2026-07-01, new starts 2026-09-01"
    assert "in between, the list price, or none, applies to model listed of provider openai" in finding.problem


def test_a_long_period_over_two_short_ones_overlaps_both_and_leaves_no_gap() -> None:
    findings = findings_of(
        priced() | {"id": "long"},
        priced() | {"id": "one", "from": dt.date(2026, 2, 1), "to": dt.date(2026, 3, 1)},
        priced() | {"id": "two", "from": JULY, "to": SEPTEMBER},
    )
    assert [finding.severity for finding in findings] == [Severity.ERROR, Severity.ERROR]


def test_gaps_and_overlaps_of_infrastructure_are_found() -> None:
    old = tariff(id="old", to=JULY)
    assert [finding.severity for finding in findings_of(infrastructure=[old, tariff(**{"from": SEPTEMBER})])] == [
        Severity.WARNING
    ]
    assert [
        finding.severity for finding in findings_of(infrastructure=[tariff(id="old"), tariff(**{"from": JULY})])
    ] == [Severity.ERROR]


def test_an_agreement_that_never_applies_is_found() -> None:
    finding = only(findings_of(agreement(id="all", model="*"), priced() | {"id": "one"}), Severity.ERROR)
    assert finding.problem == "one never applies: all comes first"
    assert findings_of(priced() | {"id": "one"}, agreement(id="all", model="*")) == ()
    assert findings_of(agreement(id="all", model="*", to=JULY), priced() | {"id": "one"}) == ()


def test_a_model_in_use_without_a_price_is_an_error() -> None:
    finding = only(findings_of(in_use=(("conversation.ollama", "llama3.2"),)), Severity.ERROR)
    assert finding.value == "conversation.ollama llama3.2"
    assert finding.remedy.startswith("add an agreement for provider conversation.ollama and model llama3.2")


def test_no_infrastructure_price_now_is_an_error() -> None:
    assert "no infrastructure price" in only(findings_of(infrastructure=[]), Severity.ERROR).problem


def test_stale_checks_of_sources_are_warnings() -> None:
    old = dt.date(2026, 8, 23)  # 91 days ago
    finding = only(findings_of(priced() | {"checked": old}), Severity.WARNING)
    assert finding.problem == "agreed was checked 91 days ago, more than 90"
    assert findings_of(priced() | {"checked": dt.date(2026, 8, 24)}) == ()
    assert findings_of(priced() | {"checked": old, "to": dt.date(2026, 11, 22)}) == ()  # holds no longer
    assert "in the future" in findings_of(priced() | {"checked": dt.date(2026, 11, 23)})[0].problem


def test_another_version_of_the_list_is_a_warning() -> None:
    looked = {"version": "0.9", "checked": dt.date(2026, 11, 1), "source": "the list"}
    finding = only(findings_of(list_prices=looked), Severity.WARNING)
    assert finding.problem == "genai-prices 1 is installed, but finance has checked 0.9"


def test_findings_name_file_and_line(tmp_path: Path) -> None:
    changed = tmp_path / "prices.yaml"
    changed.write_text(PROJECT_FILE.read_text().replace('input: "0.40"', 'input: "0.0000004"'))
    line = next(
        number for number, text in enumerate(changed.read_text().splitlines(), start=1) if text == "  - id: sandbox"
    )
    finding = check(book.load(changed), [], NOW)[0]
    assert (finding.severity, finding.where) == (Severity.ERROR, f"{changed}:{line}")


def test_two_lists_that_disagree_are_a_warning_until_finance_settles_it() -> None:
    other = LiteLLMPrices(
        {
            "openai/listed": {
                "litellm_provider": "openai",
                "input_cost_per_token": Decimal("0.000001"),
                "cache_read_input_token_cost": Decimal("0.0000001"),
                "output_cost_per_token": Decimal("0.000003"),
            }
        }
    )
    finding = only(check(price_book(), [(OPENAI, "listed")], NOW, other), Severity.WARNING)
    assert (finding.where, finding.value) == ("genai-prices-1/openai/listed", "output 4 or 3")
    discount = agreement(model="listed", per_million_tokens=None, discount_percent="5")
    assert len(check(price_book(discount), [(OPENAI, "listed")], NOW, other)) == 1
    assert check(price_book(priced()), [(OPENAI, "listed")], NOW, other) == ()
    assert check(price_book(), [(OPENAI, "tiered")], NOW, other) == ()


CHEAP = {
    "litellm_provider": "openai",
    "input_cost_per_token": Decimal("0.000001"),
    "output_cost_per_token": Decimal("0.000004"),
}


def test_a_price_that_one_list_alone_has_is_a_warning_that_names_both() -> None:
    cached = CHEAP | {"cache_read_input_token_cost": Decimal("0.0000001")}
    book, used = price_book(), [(OPENAI, "listed")]
    assert check(book, used, NOW, LiteLLMPrices({"listed": cached})) == ()
    lacking = only(check(book, used, NOW, LiteLLMPrices({"listed": CHEAP})), Severity.WARNING)
    assert lacking.value == "cached_input 0.1 or none (charged as input, 1)"
    more = cached | {"cache_creation_input_token_cost": Decimal("0.00000125")}
    written = only(check(book, used, NOW, LiteLLMPrices({"listed": more})), Severity.WARNING)
    assert written.value == "cache_write none (charged as input, 1) or 1.25"
    assert "genai-prices and litellm disagree on conversation.openai listed" in written.problem


@pytest.mark.parametrize("provider", ["openai", OPENAI, "OpenAI"])
@pytest.mark.parametrize("name", ["ft:gpt-4o-mini-2024-07-18:acme::abc", "ft:gpt-4o-mini-2024-07-18:acme:support:abc"])
def test_a_fine_tuned_model_is_found_in_both_lists(provider: str, name: str) -> None:
    findings = check(book.load(PROJECT_FILE), [(provider, name)], NOW, litellm_prices.load())
    (finding,) = [finding for finding in findings if "disagree" in finding.problem]
    assert finding.value == "cached_input none (charged as input, 0.3) or 0.15"


def test_an_agreement_without_a_price_that_the_list_has_apart_is_a_warning() -> None:
    bare = agreement(model="listed", per_million_tokens={"input": "1", "output": "4"})
    finding = only(check(price_book(bare), [(OPENAI, "listed")], NOW), Severity.WARNING)
    assert finding.value == "cached_input none (charged as input, 1), listed 0.1"
    assert check(price_book(bare), [], NOW) == ()


def test_an_agreement_with_an_unknown_provider_is_a_warning() -> None:
    for name in ("OpenAI", "conversation.openai", "conversation.*", "open*", "Azure OpenAI", "AWS Bedrock"):
        assert not any("no provider" in finding.problem for finding in findings_of(priced() | {"provider": name}))
    finding = next(
        finding for finding in findings_of(priced() | {"provider": "opnai"}) if "no provider" in finding.problem
    )
    assert (finding.severity, finding.value) == (Severity.WARNING, "opnai")
    mine = findings_of(priced() | {"provider": "our own"}, in_use=(("our own", "listed"),))
    assert not any("no provider" in finding.problem for finding in mine)


def test_the_second_list_is_the_one_inside_the_installed_package() -> None:
    other = litellm_prices.load()
    assert other is not None
    prices = other.find(OPENAI, "gpt-4o")
    assert prices is not None
    assert prices[Meter.INPUT] == Decimal("2.5")
    assert other.find("conversation.mistral", "mistral-large-latest") is not None
    assert other.find("conversation.aws.bedrock", "amazon.nova-lite-v1:0") is not None
    assert other.find("conversation.anthropic", "gpt-4o") is None


def test_prices_of_the_second_list_are_kept_to_the_last_digit() -> None:
    text = '{"m": {"litellm_provider": "x", "input_cost_per_token": 1.5e-07, "output_cost_per_token": 0.0}}'
    prices = LiteLLMPrices(json.loads(text, parse_float=Decimal)).find("x", "m")
    assert prices == {Meter.INPUT: Decimal("0.15"), Meter.OUTPUT: Decimal(0)}
