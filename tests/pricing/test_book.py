"""Which price applies, by provider, model, time and order in the file; and the digest of a book."""

from __future__ import annotations

import datetime as dt
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.pricing import book
from app.pricing.book import PriceBook
from app.pricing.charge_types import Meter, Mode
from app.pricing.list_prices import ListPrices
from app.pricing.schedule import NoPrice, Price
from tests.pricing.makers import NOW, OPENAI, PROJECT_FILE, agreement, price_book, price_file, small_list, tariff

MIDNIGHT = datetime(2026, 7, 1, tzinfo=UTC)


def find_price(prices: PriceBook, provider: str, model: str, at: datetime = NOW, mode: Mode = Mode.STANDARD) -> Price:
    price = prices.find(provider, model, at, mode)
    assert isinstance(price, Price), price
    return price


def test_a_fresh_checkout_has_a_price_for_the_sandbox() -> None:
    prices = book.load(PROJECT_FILE)
    price = find_price(prices, OPENAI, "sandbox-small")
    rates = {line: steps[0][1] for line, steps in price.contracted.items()}
    assert rates == {Meter.INPUT: Decimal("0.40"), Meter.CACHED_INPUT: Decimal("0.10"), Meter.OUTPUT: Decimal("1.60")}
    assert "made up" in price.source
    assert find_price(prices, "conversation.anthropic", "sandbox-small").id == price.id
    line = PROJECT_FILE.read_text().splitlines()[int(price.where.rpartition(":")[2]) - 1]
    assert line == "  - id: sandbox"


@pytest.mark.parametrize(
    ("provider", "pattern", "asked", "model", "matches"),
    [
        (OPENAI, "model-*", OPENAI, "model-a", True),
        ("openai", "model-*", OPENAI, "model-a", True),
        (OPENAI, "model-*", "openai", "Model-A", True),
        ("conversation.*", "model-a", OPENAI, "model-a", True),
        ("*", "*", "conversation.ollama", "llama3.2", True),
        ("anthropic", "model-*", OPENAI, "model-a", False),
        (OPENAI, "model-a", OPENAI, "model-a-large", False),
        ("aws", "anthropic.*", "conversation.aws.bedrock", "anthropic.claude", True),
    ],
)
def test_agreements_match_type_or_id_and_a_pattern(
    provider: str, pattern: str, asked: str, model: str, matches: bool
) -> None:
    prices = price_book(agreement(provider=provider, model=pattern))
    assert isinstance(prices.find(asked, model, NOW), Price) == matches


def test_a_period_holds_its_first_instant_and_not_its_last() -> None:
    prices = price_book(
        agreement(id="before", to=MIDNIGHT.date()),
        agreement(**{"from": MIDNIGHT.date()}, id="after"),
    )
    ids = [find_price(prices, OPENAI, "model-a", at).id for at in (MIDNIGHT - timedelta(microseconds=1), MIDNIGHT)]
    assert ids == ["prices.yaml/before", "prices.yaml/after"]


def test_before_and_after_all_periods_the_list_applies_or_none() -> None:
    prices = price_book(agreement(model="*", to=MIDNIGHT.date()))
    assert find_price(prices, OPENAI, "listed", MIDNIGHT).id == "genai-prices-1/openai/listed"
    assert isinstance(prices.find(OPENAI, "model-a", MIDNIGHT), NoPrice)


def test_the_first_agreement_in_the_file_applies() -> None:
    prices = price_book(agreement(id="first", model="model-*"), agreement(id="second"))
    assert find_price(prices, OPENAI, "model-a").id == "prices.yaml/first"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no zone; give it in UTC"):
        price_book().find(OPENAI, "listed", datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


def test_a_discount_on_the_list_keeps_tiers_and_dates() -> None:
    cut = agreement(id="cut", model="*", per_million_tokens=None, discount_percent="25")
    prices = price_book(cut)
    price = find_price(prices, OPENAI, "tiered")
    assert price.contracted[Meter.INPUT] == ((-1, Decimal("0.75")), (1000, Decimal("1.5")))
    assert price.listed[Meter.INPUT] == ((-1, Decimal(1)), (1000, Decimal(2)))
    assert price.id == "prices.yaml/cut/genai-prices-1/openai/tiered"
    spring = find_price(prices, OPENAI, "dated", datetime(2026, 5, 31, tzinfo=UTC))
    assert spring.contracted[Meter.INPUT][0][1] == 3
    assert find_price(prices, OPENAI, "dated").contracted[Meter.INPUT][0][1] == Decimal("1.5")
    assert isinstance(prices.find(OPENAI, "nowhere", NOW), NoPrice)


def test_a_batch_of_the_list_takes_what_it_has_and_the_standard_price_for_the_rest() -> None:
    price = find_price(price_book(), OPENAI, "listed", mode=Mode.BATCH)
    assert {line: steps[0][1] for line, steps in price.contracted.items()} == {
        Meter.INPUT: Decimal("0.5"),
        Meter.CACHED_INPUT: Decimal("0.1"),
        Meter.OUTPUT: Decimal(2),
    }


def test_an_agreement_without_a_batch_price_has_none() -> None:
    missing = price_book(agreement(model="listed")).find(OPENAI, "listed", NOW, Mode.BATCH)
    assert isinstance(missing, NoPrice)
    assert missing.remedy == "give agreed a `batch:` with prices or a discount_percent"


def test_the_list_price_is_compared_in_the_same_currency_only() -> None:
    dollars, euros = (
        find_price(price_book(agreement(model="listed", currency=currency)), OPENAI, "listed")
        for currency in ("USD", "EUR")
    )
    assert dollars.listed[Meter.INPUT][0][1] == 1
    assert euros.listed == euros.contracted


def test_infrastructure_has_dates_too() -> None:
    prices = price_book(
        infrastructure=[tariff(id="old", to=MIDNIGHT.date()), tariff(**{"from": MIDNIGHT.date()}, id="new")]
    )
    times = (MIDNIGHT - timedelta(microseconds=1), MIDNIGHT, datetime(2025, 1, 1, tzinfo=UTC))
    holding = [prices.infrastructure(at) for at in times]
    assert [entry.id if entry else None for entry in holding] == ["old", "new", None]


def test_the_digest_stands_for_the_content(tmp_path: Path) -> None:
    same = tmp_path / "prices.yaml"
    same.write_text(PROJECT_FILE.read_text().replace('"0.40"', '"0.4"') + "\n# a comment\n")
    assert book.load(same).digest == book.load(PROJECT_FILE).digest
    same.write_text(PROJECT_FILE.read_text().replace('"0.40"', '"0.41"'))
    assert book.load(same).digest != book.load(PROJECT_FILE).digest


def test_every_part_of_a_book_is_in_its_digest() -> None:
    later = dt.date(2026, 12, 1)
    books = [
        price_book(),
        price_book(agreement()),
        price_book(agreement(to=later)),
        price_book(agreement(discount_percent="1")),
        price_book(agreement(checked=dt.date(2026, 11, 2))),
        price_book(infrastructure=[tariff(logs_per_gb="0.51")]),
        price_book(retention_months="2"),
        book.make(price_file(), ListPrices([], "2")),
    ]
    assert len({book_variant.digest for book_variant in books}) == len(books)
    assert book.make(price_file(), small_list()).digest == books[0].digest
