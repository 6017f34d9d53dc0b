"""The JSON of `provider list`, `provider show` and `provider use`."""

from __future__ import annotations

from datetime import date, datetime

from app.dapr.component_support import ComponentSupport
from app.finance.report_schemas import Exact, View
from app.pricing.book import PriceBook
from app.pricing.charge_types import Meter
from app.pricing.litellm_prices import LiteLLMPrices
from app.pricing.model_facts import model_facts
from app.pricing.schedule import NoPrice, Price, rates_at
from app.providers.catalogue import ProviderTemplate
from app.providers.provider_check import ProbeVerdict


class SupportView(View):
    """What Dapr supports of a component type. `tools_from`: the Dapr version in which tools start to work, or null."""

    usage: bool
    tools: bool
    structured_output: bool
    cached_tokens: bool
    tools_from: str | None


class TokenPriceView(View):
    """Prices per million tokens, below the first tier; null where a kind of token has no price of its own."""

    currency: str
    input: Exact
    cached_input: Exact | None
    cache_write: Exact | None
    output: Exact
    price_id: str


class ProviderView(View):
    """One provider. `price` is null without a price, and `price_problem` then says why. A source names the file and
    line, or the published list, that a fact is from. `missing_secrets` is null if the secret store is not a local
    file."""

    name: str
    in_use: bool
    component_type: str
    model: str
    endpoint: str
    price: TokenPriceView | None
    price_problem: str
    context_tokens: int | None
    context_source: str
    retires: date | None
    retires_source: str
    support: SupportView | None
    secrets: tuple[str, ...]
    missing_secrets: tuple[str, ...] | None
    description: str
    file: str


class CatalogueView(View):
    """All providers. `in_use` is the name of the one in components/llm.yaml, or null if that is none of them;
    `component_type` and `model` are what that file says, or null if it cannot be read."""

    in_use: str | None
    component_type: str | None
    model: str | None
    providers: tuple[ProviderView, ...]


class ProbeView(View):
    """One question about a provider. `verdict`: pass, fail, or "cannot be tested here"."""

    question: str
    verdict: ProbeVerdict
    evidence: str


class ProviderCheckView(View):
    """What a provider does, question by question. `input_tokens` and `output_tokens` are what the check used, as far as
    it was reported; these calls are not in the ledger."""

    provider: str
    component_type: str
    model: str
    results: tuple[ProbeView, ...]
    requests: int
    input_tokens: int
    output_tokens: int


class ChecksView(View):
    """The checks, in the order asked for. `ok`: no question failed."""

    ok: bool
    checks: tuple[ProviderCheckView, ...]


class SwitchView(View):
    """A switch to another provider. `written` is false for a dry run, and if the file had that text already; `backup`
    is null if nothing was kept."""

    provider: str
    component_type: str
    model: str
    endpoint: str
    written: bool
    file: str
    backup: str | None
    diff: str
    notes: tuple[str, ...]


def provider_view(
    template: ProviderTemplate,
    book: PriceBook,
    litellm_prices: LiteLLMPrices | None,
    at: datetime,
    *,
    in_use: bool,
    missing_secrets: tuple[str, ...] | None,
) -> ProviderView:
    """One provider with the price that holds at an instant for its model, and the facts about it."""
    price = book.find(template.component_type, template.model, at)
    facts = model_facts(book, litellm_prices, template.component_type, template.model)
    return ProviderView(
        name=template.name,
        in_use=in_use,
        component_type=template.component_type,
        model=template.model,
        endpoint=template.endpoint,
        price=None if isinstance(price, NoPrice) else _price_view(price),
        price_problem=f"{price.reason}; {price.remedy}" if isinstance(price, NoPrice) else "",
        context_tokens=facts.context_tokens,
        context_source=facts.context_source,
        retires=facts.retires,
        retires_source=facts.retires_source,
        support=_support_view(template.support) if template.support else None,
        secrets=template.secrets,
        missing_secrets=missing_secrets,
        description=template.description,
        file=str(template.file),
    )


def _price_view(price: Price) -> TokenPriceView:
    rates = rates_at(price.contracted, 0)
    return TokenPriceView(
        currency=price.currency,
        input=rates[Meter.INPUT],
        cached_input=rates.get(Meter.CACHED_INPUT),
        cache_write=rates.get(Meter.CACHE_WRITE),
        output=rates[Meter.OUTPUT],
        price_id=price.id,
    )


def _support_view(support: ComponentSupport) -> SupportView:
    return SupportView(
        usage=support.usage,
        tools=support.tools,
        structured_output=support.structured_output,
        cached_tokens=support.cached_tokens,
        tools_from=str(support.tools_from) if support.tools_from else None,
    )
