"""The price book: finance's agreements and the published list, identified by one digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

from app.pricing import price_file
from app.pricing.charge_types import Meter, Mode, utc
from app.pricing.list_prices import CURRENCY, PACKAGE, ListedModel, ListPrices, load_bundled
from app.pricing.price_file import NAME, Agreement, Batch, Infrastructure, ModelEntry, PriceFile, TokenPrices
from app.pricing.providers import provider_id
from app.pricing.schedule import BASE, NoPrice, Price, Schedule, discount_schedule


def matches(entry: Agreement | ModelEntry, provider: str, model: str) -> bool:
    """Whether an entry of finance's file applies to a model of a provider; case-insensitive."""
    pattern = entry.provider.lower()
    names = (provider.lower(), provider_id(provider))
    same_provider = any(fnmatchcase(name, pattern) for name in names) or provider_id(pattern) == names[1]
    return same_provider and fnmatchcase(model.lower(), entry.model.lower())


def schedule_of(prices: TokenPrices, *tiers: tuple[int, TokenPrices]) -> Schedule:
    """Prices and tiers by kind of token. In a tier, a kind without its own price costs the same as input."""
    levels = ((BASE, prices), *tiers)
    kinds: dict[Meter, list[Decimal | None]] = {
        Meter.INPUT: [rates.input for _, rates in levels],
        Meter.CACHED_INPUT: [rates.cached_input for _, rates in levels],
        Meter.CACHE_WRITE: [rates.cache_write for _, rates in levels],
        Meter.OUTPUT: [rates.output for _, rates in levels],
    }
    return {
        meter: tuple(
            (above, rates.input if price is None else price)
            for (above, rates), price in zip(levels, prices_of_kind, strict=True)
        )
        for meter, prices_of_kind in kinds.items()
        if any(price is not None for price in prices_of_kind)
    }


def _tiers(tariff: Agreement | Batch) -> list[tuple[int, TokenPrices]]:
    return [(tier.above_input_tokens, tier.per_million_tokens) for tier in tariff.tiers]


def agreed_price(
    agreement: Agreement, published: Price | NoPrice, provider: str, model: str, mode: Mode, where: Mapping[str, str]
) -> Price | NoPrice:
    """The price of an agreement that names prices. Its list price is the published one if the currencies are equal."""
    prices = own_prices(agreement, mode)
    if prices is None:
        reason = f"agreement {agreement.id} ({where.get(agreement.id, NAME)}) has no batch price for model {model}"
        return NoPrice(reason, f"give {agreement.id} a `batch:` with prices or a discount_percent")
    comparable = isinstance(published, Price) and published.currency == agreement.currency
    return Price(
        id=f"{NAME}/{agreement.id}{suffix(mode)}",
        provider=provider_id(provider),
        model=model,
        mode=mode,
        currency=agreement.currency,
        contracted=discount_schedule(prices, agreement.discount_percent),
        listed=published.listed if isinstance(published, Price) and comparable else prices,
        source=agreement.source,
        checked=agreement.checked,
        where=where.get(agreement.id, ""),
    )


def own_prices(agreement: Agreement, mode: Mode) -> Schedule | None:
    """An agreement's own prices before its discount; None if it names none for the mode."""
    if agreement.per_million_tokens is None:
        return None
    standard = schedule_of(agreement.per_million_tokens, *_tiers(agreement))
    if mode is Mode.STANDARD:
        return standard
    batch = agreement.batch
    if batch is None:
        return None
    if batch.per_million_tokens is not None:
        return schedule_of(batch.per_million_tokens, *_tiers(batch))
    return discount_schedule(standard, batch.discount_percent or Decimal(0))


def discounted_list(agreement: Agreement, published: Price | NoPrice, where: Mapping[str, str]) -> Price | NoPrice:
    """The list price with an agreement's discount."""
    if isinstance(published, NoPrice):
        reason = f"agreement {agreement.id} is a discount on a list price, but {published.reason}"
        return NoPrice(reason, published.remedy)
    return Price(
        id=f"{NAME}/{agreement.id}/{published.id}",
        provider=published.provider,
        model=published.model,
        mode=published.mode,
        currency=published.currency,
        contracted=discount_schedule(published.listed, agreement.discount_percent),
        listed=published.listed,
        source=f"{agreement.source}; on {published.source}",
        checked=min(agreement.checked, published.checked),
        where=where.get(agreement.id, ""),
    )


def suffix(mode: Mode) -> str:
    """The end of a price id for a mode: each mode has a price of its own."""
    return "" if mode is Mode.STANDARD else f"/{mode}"


_FORMULA = 1  # version of the formula; part of the digest, because another formula gives other costs


@dataclass(frozen=True, eq=False)
class PriceBook:
    """All prices at all times.

    where: `file:line` of each price id of ours. content: the book as JSON. digest: SHA-256 of `content`, in hex.
    """

    file: PriceFile
    list_prices: ListPrices
    where: Mapping[str, str]
    digest: str
    content: str
    _candidate_cache: dict[tuple[str, str], tuple[tuple[Agreement, ...], ListedModel | None]] = field(
        default_factory=dict, init=False, repr=False
    )
    _prices: dict[tuple[str, str, str, str | None, Mode], Price] = field(default_factory=dict, init=False, repr=False)

    def find(self, provider: str, model: str, at: datetime, mode: Mode = Mode.STANDARD) -> Price | NoPrice:
        """The price of a model at an instant. `provider` is a Dapr component type or a provider's name. Raises
        ValueError for a time without a zone."""
        at = utc(at)
        agreements, listed = self._candidates(provider, model)
        agreement = next((candidate for candidate in agreements if candidate.holds(at)), None)
        dated = listed.at(at, mode) if listed else None
        key = (provider, model, agreement.id if agreement else "", dated.label if dated else None, mode)
        if key not in self._prices:
            price = self._resolve(provider, model, mode, agreement, at)
            if isinstance(price, NoPrice):
                return price
            self._prices[key] = price
        return self._prices[key]

    def infrastructure(self, at: datetime) -> Infrastructure | None:
        """The prices of compute and of keeping the record at an instant: the first entry that applies, or None."""
        at = utc(at)
        return next((price for price in self.file.infrastructure if price.holds(at)), None)

    def agreements(self, provider: str, model: str) -> tuple[Agreement, ...]:
        """The agreements whose patterns match, at any date, in the file's order."""
        return self._candidates(provider, model)[0]

    def listed(self, provider: str, model: str) -> ListedModel | None:
        """The model in the published list; None if it is not there."""
        return self._candidates(provider, model)[1]

    def _candidates(self, provider: str, model: str) -> tuple[tuple[Agreement, ...], ListedModel | None]:
        key = (provider, model)
        if key not in self._candidate_cache:
            agreements = tuple(agreement for agreement in self.file.agreements if matches(agreement, provider, model))
            self._candidate_cache[key] = (agreements, self.list_prices.find(provider_id(provider), model))
        return self._candidate_cache[key]

    def _resolve(
        self, provider: str, model: str, mode: Mode, agreement: Agreement | None, at: datetime
    ) -> Price | NoPrice:
        published = self._list_price(provider, model, mode, at)
        if agreement is None:
            return published
        if agreement.per_million_tokens is None:
            return discounted_list(agreement, published, self.where)
        return agreed_price(agreement, published, provider, model, mode, self.where)

    def _list_price(self, provider: str, model: str, mode: Mode, at: datetime) -> Price | NoPrice:
        listed = self.listed(provider, model)
        dated = listed.at(at, mode) if listed else None
        subject = f"model {model or '(none)'} of provider {provider or '(none)'}"
        if listed is None or dated is None:
            missing = f"at {at:%Y-%m-%d %H:%M} UTC in mode {mode}" if listed else "under that name"
            reason = f"{subject} is not in {PACKAGE} {self.list_prices.version} {missing}"
            return NoPrice(reason, _remedy(provider, model))
        if dated.uncounted:
            reason = f"{subject} is also billed by {', '.join(dated.uncounted)}, which the record does not count"
            return NoPrice(reason, _remedy(provider, model))
        version = f"{PACKAGE}-{self.list_prices.version}"
        return Price(
            id=f"{version}/{listed.provider}/{listed.model}{dated.label}{suffix(mode)}",
            provider=listed.provider,
            model=model,
            mode=mode,
            currency=CURRENCY,
            contracted=dated.schedule,
            listed=dated.schedule,
            source=f"{version}: {listed.source}",
            checked=self.file.list_prices.checked,
        )


def load(path: Path) -> PriceBook:
    """Makes the book from finance's file at `path` and the installed list. Raises ConfigurationError."""
    document = price_file.read(path)
    sections = {"agreements": document.value.agreements, "infrastructure": document.value.infrastructure}
    where = {
        dated.id: document.where(section, number, "id")
        for section, entries in sections.items()
        for number, dated in enumerate(entries)
    }
    where |= {
        model_place(number): document.where("models", number, "model") for number in range(len(document.value.models))
    }
    return make(document.value, load_bundled(), where)


def model_place(number: int) -> str:
    """The key of `PriceBook.where` for an entry of `models:`, which has no id."""
    return f"models[{number}]"


def make(file: PriceFile, list_prices: ListPrices, where: Mapping[str, str] | None = None) -> PriceBook:
    """Makes the book from a parsed price file and a list. `where`: `file:line` of each price id of the file."""
    content = {
        "formula": _FORMULA,
        "list": [PACKAGE, list_prices.version],
        "file": file.model_dump(mode="json", by_alias=True, exclude={"models"}),  # facts that change no price
    }
    text = json.dumps(content, sort_keys=True)
    return PriceBook(file, list_prices, where or {}, hashlib.sha256(text.encode()).hexdigest(), text)


def restore(content: str) -> PriceBook | None:
    """The book of a stored `content`; None if the list or the formula has changed since, so that it cannot be made
    again."""
    book = make(PriceFile.model_validate(json.loads(content)["file"], strict=False), load_bundled())
    return book if book.content == content else None


def _remedy(provider: str, model: str) -> str:
    return f"add an agreement for provider {provider or '*'} and model {model or '*'} to config/{NAME}"
