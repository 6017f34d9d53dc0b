"""The context limit and the retirement date of a model: finance's file first, then the published lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from app.pricing.book import PriceBook, matches, model_place
from app.pricing.list_prices import PACKAGE
from app.pricing.litellm_prices import PACKAGE as LITELLM
from app.pricing.litellm_prices import LiteLLMPrices
from app.pricing.price_file import NAME


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model besides its price; None: not known. A source is `file:line` of finance's file, or the
    name of a published list.

    context_tokens: the most input tokens of a request. retires: the first day on which its provider no longer serves
    it.
    """

    context_tokens: int | None = None
    context_source: str = ""
    retires: date | None = None
    retires_source: str = ""


def model_facts(book: PriceBook, litellm_prices: LiteLLMPrices | None, provider: str, model: str) -> ModelFacts:
    """The facts about a model of a provider (component type or id), each from the first source that has it. With
    `retires: never`, finance overrules a published date."""
    context_tokens, context_source = _context(book, litellm_prices, provider, model)
    retires, retires_source = _retirement(book, litellm_prices, provider, model)
    return ModelFacts(context_tokens, context_source, retires, retires_source)


def _context(
    book: PriceBook, litellm_prices: LiteLLMPrices | None, provider: str, model: str
) -> tuple[int | None, str]:
    for number, entry in enumerate(book.file.models):
        if entry.context_tokens is not None and matches(entry, provider, model):
            return entry.context_tokens, book.where.get(model_place(number), NAME)
    if litellm_prices and (limit := litellm_prices.context_tokens(provider, model)):
        return limit, LITELLM
    listed = book.listed(provider, model)
    if listed and listed.context_tokens:
        return listed.context_tokens, f"{PACKAGE} {book.list_prices.version}"
    return None, ""


def _retirement(
    book: PriceBook, litellm_prices: LiteLLMPrices | None, provider: str, model: str
) -> tuple[date | None, str]:
    for number, entry in enumerate(book.file.models):
        if entry.retires is not None and matches(entry, provider, model):
            source = book.where.get(model_place(number), NAME)
            return (None if entry.retires == "never" else entry.retires), source
    retires = litellm_prices.retires(provider, model) if litellm_prices else None
    return retires, LITELLM if retires else ""
