"""Context limits and retirement dates: finance's file first, then the lists; and what `price check` makes of them."""

from __future__ import annotations

import datetime as dt
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import ConfigurationError
from app.pricing import book, litellm_prices
from app.pricing.book import PriceBook
from app.pricing.check import Severity, check
from app.pricing.litellm_prices import LiteLLMPrices
from app.pricing.model_facts import ModelFacts, model_facts
from tests.pricing.makers import NOW, OPENAI, PROJECT_FILE, price_book

DAY = NOW.date()
LIST = LiteLLMPrices(
    {
        "old": {"litellm_provider": "openai", "max_input_tokens": 1000, "deprecation_date": "2026-12-11"},
        "old-2026-01-01": {"litellm_provider": "openai", "deprecation_date": "2026-12-01"},
        "alias": {"litellm_provider": "openai", "max_input_tokens": 2000},
        "alias-2026-01-01": {"litellm_provider": "openai", "deprecation_date": "2026-12-01"},
        "odd": {"litellm_provider": "openai", "max_input_tokens": "many", "deprecation_date": "soon"},
    }
)


def entry(**changes: Any) -> dict[str, Any]:
    """What finance's file says of `old`."""
    return {
        "provider": OPENAI,
        "model": "old",
        "source": "the provider's page",
        "checked": dt.date(2026, 11, 1),
    } | changes


def book_with(*models: dict[str, Any]) -> PriceBook:
    """A price book with these entries under `models:`."""
    return price_book(models=list(models))


def test_the_published_list_gives_both_facts() -> None:
    facts = model_facts(book_with(), LIST, OPENAI, "old")
    assert facts == ModelFacts(1000, "litellm", dt.date(2026, 12, 11), "litellm")


def test_finances_file_goes_before_the_lists_fact_by_fact() -> None:
    facts = model_facts(book_with(entry(context_tokens=500)), LIST, OPENAI, "old")
    assert facts == ModelFacts(500, "prices.yaml", dt.date(2026, 12, 11), "litellm")
    facts = model_facts(book_with(entry(retires=dt.date(2027, 1, 1))), LIST, "openai", "OLD")
    assert (facts.retires, facts.retires_source) == (dt.date(2027, 1, 1), "prices.yaml")


def test_never_overrules_a_published_date() -> None:
    assert model_facts(book_with(entry(retires="never")), LIST, OPENAI, "old").retires is None


def test_the_first_entry_that_matches_and_has_the_fact_applies() -> None:
    entries = entry(context_tokens=1), entry(model="ol*", retires=dt.date(2027, 5, 1)), entry(retires="never")
    facts = model_facts(book_with(*entries), None, OPENAI, "old")
    assert (facts.context_tokens, facts.retires) == (1, dt.date(2027, 5, 1))
    assert model_facts(book_with(*entries), None, "conversation.anthropic", "old") == ModelFacts()


def test_the_date_of_a_dated_version_says_nothing_of_its_alias() -> None:
    assert model_facts(book_with(), LIST, OPENAI, "alias").retires is None
    assert model_facts(book_with(), LIST, OPENAI, "alias-2026-01-01").retires == dt.date(2026, 12, 1)
    assert model_facts(book_with(), LIST, OPENAI, "old-2026-05-05").retires is None


@pytest.mark.parametrize(("provider", "model"), [(OPENAI, "odd"), (OPENAI, "unknown"), ("conversation.ollama", "old")])
def test_what_no_source_says_is_unknown(provider: str, model: str) -> None:
    assert model_facts(book_with(), LIST, provider, model) == ModelFacts()


def test_without_litellm_the_price_list_gives_the_context_limit() -> None:
    facts = model_facts(book.load(PROJECT_FILE), None, OPENAI, "gpt-5-mini")
    assert facts == ModelFacts(400_000, "genai-prices 0.2.3")


def test_the_installed_list_knows_the_date_of_a_model_that_is_gone() -> None:
    facts = model_facts(book.load(PROJECT_FILE), litellm_prices.load(), "conversation.deepseek", "deepseek-chat")
    assert facts.retires == dt.date(2026, 7, 24)


def test_facts_change_neither_the_digest_nor_the_kept_content(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    text = PROJECT_FILE.read_text()
    begin = text.index("# models:\n")
    file.write_text(text[:begin] + text[begin:].replace("# ", "", 7).replace("#   ", "  "))
    told, plain = book.load(file), book.load(PROJECT_FILE)
    assert told.file.models[0].model == "claude-haiku-4-5*"
    assert (told.digest, told.content) == (plain.digest, plain.content)
    facts = model_facts(told, None, OPENAI, "claude-haiku-4-5-20251001")
    line = next(n for n, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("claude-haiku-4-5*"))
    assert (facts.context_tokens, facts.retires_source) == (200_000, f"{file}:{line}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("retires: soon", "models.0.retires"),
        ("context_tokens: 0", "models.0.context_tokens: Input should be greater than 0"),
        ("context_token: 5", "models.0.context_token: unknown key"),
        ("source: the page", "model m has neither context_tokens nor retires"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, words: str, said: str) -> None:
    file = tmp_path / "prices.yaml"
    head = PROJECT_FILE.read_text()
    source = "" if words.startswith("source") else "    source: the page\n"
    more = f"models:\n  - provider: openai\n    model: m\n    checked: 2026-11-01\n{source}    {words}\n"
    file.write_text(head + more)
    with pytest.raises(ConfigurationError, match=rf"prices.yaml:\d+: .*{said}|prices.yaml:\d+: {said}") as error:
        book.load(file)
    number = int(str(error.value).split(":")[1])
    assert number > len(head.splitlines())


# What `price check` makes of them.


@pytest.mark.parametrize(
    ("days", "said"), [(30, "retires in 30 days"), (1, "retires in 1 day and"), (0, "been retired")]
)
def test_a_model_that_is_called_and_retires_soon_fails_the_check(days: int, said: str) -> None:
    day = DAY + timedelta(days=days)
    (finding,) = check(book_with(entry(retires=day)), (), NOW, None, (), [(OPENAI, "old")])
    assert (finding.severity, finding.value) == (Severity.ERROR, f"{OPENAI} old, {day}")
    assert said in finding.problem
    assert "refund-agent provider use NAME --model MODEL" in finding.remedy


def test_a_later_date_or_a_model_that_is_no_longer_called_is_no_finding() -> None:
    later = book_with(entry(retires=DAY + timedelta(days=31)))
    assert check(later, (), NOW, None, (), [(OPENAI, "old")]) == ()
    soon = book_with(entry(retires=DAY))
    assert check(soon, (), NOW, None, (), [(OPENAI, "other")]) == ()


def test_a_fact_that_nobody_has_checked_for_long_is_a_warning() -> None:
    (finding,) = check(book_with(entry(retires="never", checked=dt.date(2026, 1, 1))), (), NOW)
    assert (finding.severity, finding.value) == (Severity.WARNING, "2026-01-01")
    assert finding.problem.startswith("model old was checked")
