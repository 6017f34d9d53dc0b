"""The published list as we read it agrees with the package's own reckoning, and says nothing where it would guess."""

from __future__ import annotations

import datetime as dt
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices import types
from genai_prices.data import providers

from app.pricing import book
from app.pricing.charge_types import Mode, TokenUsage
from app.pricing.formula import CallPrice, price_call
from app.pricing.list_prices import ListPrices, load_bundled
from app.pricing.schedule import NoPrice
from tests.pricing.makers import NOW, model, price_book, price_file, prices, small_list

TIMES = (NOW, datetime(2025, 3, 1, 20, tzinfo=UTC), datetime(2026, 8, 1, 0, 29, 59, tzinfo=UTC))
BILLED_BESIDES = {"requests_kcount", "output_reasoning_mtok", "output_citation_mtok"}
# Below and above the tiers that there are; kinds of input that overlap are counted once.
USAGES = (
    TokenUsage(input_tokens=1_000, output_tokens=500, cached_tokens=300, cache_write_tokens=100, reasoning_tokens=50),
    TokenUsage(input_tokens=250_001, output_tokens=7, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=0),
    TokenUsage(input_tokens=600_000, output_tokens=0, cached_tokens=0, cache_write_tokens=0, reasoning_tokens=0),
)


def test_every_model_costs_what_the_package_says() -> None:
    priced = book.make(price_file(), load_bundled())
    checked = 0
    for provider in providers:
        for info in provider.models:
            listed = provider.find_model(info.id, all_providers=providers)  # some ids are not what a provider answers
            for at in TIMES if listed else ():
                assert listed is not None
                keys = set(vars(listed.get_prices(at)))
                if not {"input_mtok", "output_mtok"} <= keys or keys & BILLED_BESIDES:
                    continue
                for usage in USAGES:
                    price = price_call(priced, usage, at=at, model=info.id, provider=provider.id)
                    assert isinstance(price, CallPrice), (info.id, price)
                    theirs = listed.calc_price(_theirs(usage), provider, genai_request_timestamp=at)
                    assert price.contracted_cost == theirs.total_price, (info.id, at, usage)
                    checked += 1
    assert checked > 15_000


def _theirs(usage: TokenUsage) -> types.Usage:
    return types.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )


def test_batches_cost_what_the_package_says() -> None:
    priced = book.make(price_file(), load_bundled())
    checked = 0
    for provider in providers:
        for info in provider.models:
            variants = [variant for variant in info.price_variants or () if variant.when == {"processing": "batch"}]
            if not variants or provider.find_model(info.id) is not info or not priced.listed(provider.id, info.id):
                continue
            usage = USAGES[1]
            price = price_call(priced, usage, at=NOW, model=info.id, provider=provider.id, mode=Mode.BATCH)
            theirs = info.calc_price(
                _theirs(usage), provider, genai_request_timestamp=NOW, price_context={"processing": "batch"}
            )
            if isinstance(price, CallPrice) and price.contracted_cost is not None:
                assert price.contracted_cost == theirs.total_price, info.id
                checked += 1
    assert checked > 80


def test_a_batch_without_a_batch_price_has_none_rather_than_the_standard_one() -> None:
    small = price_book()
    october = datetime(2026, 10, 1, tzinfo=UTC)
    assert isinstance(small.find("openai", "dated", NOW, Mode.BATCH), NoPrice)
    assert isinstance(small.find("openai", "listed", october - timedelta(microseconds=1), Mode.BATCH), NoPrice)
    assert not isinstance(small.find("openai", "listed", october, Mode.BATCH), NoPrice)


def test_a_price_applies_from_midnight_utc_in_every_zone() -> None:
    small = price_book()
    before = datetime.fromisoformat("2026-06-01T01:59:59+02:00")
    for at, paid in ((before, Decimal("0.000004")), (before + timedelta(seconds=1), Decimal("0.000002"))):
        price = price_call(small, TokenUsage(input_tokens=1, output_tokens=0), at=at, model="dated", provider="openai")
        assert isinstance(price, CallPrice)
        assert price.contracted_cost == paid


@pytest.mark.parametrize(
    ("begin", "end", "inside"), [(22, 6, (False, True, True, False)), (6, 22, (True, False, False, True))]
)
def test_prices_by_the_time_of_day_hold_over_midnight_too(begin: int, end: int, inside: tuple[bool, ...]) -> None:
    window = types.TimeOfDateConstraint(dt.time(begin, tzinfo=UTC), dt.time(end, tzinfo=UTC))
    info = model(
        "nightly",
        [
            types.ConditionalPrice(prices=prices(input_mtok="2", output_mtok="2")),
            types.ConditionalPrice(window, prices=prices(input_mtok="1", output_mtok="1")),
        ],
    )
    listed = ListPrices([types.Provider(id="x", name="X", api_pattern="-", models=[info])], "1").find("x", "nightly")
    assert listed is not None
    labels = [
        published.label
        for hour, minute in ((21, 59), (22, 0), (5, 59), (6, 0))
        if (published := listed.at(NOW.replace(hour=hour, minute=minute), Mode.STANDARD))
    ]
    assert [bool(label) for label in labels] == list(inside)


def test_a_model_that_is_billed_by_more_than_tokens_is_unpriced_with_the_reason() -> None:
    price = price_book(listed=small_list()).find("openai", "by-request", NOW)
    assert isinstance(price, NoPrice)
    assert "requests_kcount" in price.reason


@pytest.mark.parametrize("name", ["llama3.2", "azure/gpt-4o", "", "gpt-5-mini-hack", "sandbox-small"])
def test_unknown_names_are_not_guessed(name: str) -> None:
    assert load_bundled().find("openai", name) is None


def test_bedrock_needs_its_provider() -> None:
    name = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    priced = book.make(price_file(), load_bundled())
    assert not isinstance(priced.find("conversation.aws.bedrock", name, NOW), NoPrice)
    assert isinstance(priced.find("conversation.anthropic", name, NOW), NoPrice)


def test_the_model_of_every_component_type_by_default_has_a_price() -> None:
    priced = book.make(price_file(), load_bundled())
    for provider, name in (
        ("conversation.openai", "gpt-5-mini"),
        ("conversation.anthropic", "claude-sonnet-4-5"),
        ("conversation.googleai", "gemini-2.5-flash-lite"),
        ("conversation.mistral", "mistral-small-latest"),
        ("conversation.deepseek", "deepseek-chat"),
    ):
        assert not isinstance(priced.find(provider, name, NOW), NoPrice), name
