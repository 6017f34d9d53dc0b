"""What finance agreed with a provider: which calls it is about, and the price that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase

from app.pricing.charge_kinds import Meter, Mode
from app.pricing.price_file import NAME, Agreement, Batch, TokenPrices
from app.pricing.providers import provider_id
from app.pricing.schedule import BASE, NoPrice, Price, Schedule, less


def matches(agreement: Agreement, provider: str, model: str) -> bool:
    """Whether an agreement is about that model of that provider; case does not matter."""
    wanted = agreement.provider.lower()
    names = (provider.lower(), provider_id(provider))
    known = any(fnmatchcase(name, wanted) for name in names) or provider_id(wanted) == names[1]
    return known and fnmatchcase(model.lower(), agreement.model.lower())


def schedule_of(prices: TokenPrices, *tiers: tuple[int, TokenPrices]) -> Schedule:
    """Prices and tiers by kind of token. A kind without a price of its own in a tier costs there as input does."""
    levels = ((BASE, prices), *tiers)
    kinds: dict[Meter, list[Decimal | None]] = {
        Meter.INPUT: [each.input for _, each in levels],
        Meter.CACHED_INPUT: [each.cached_input for _, each in levels],
        Meter.CACHE_WRITE: [each.cache_write for _, each in levels],
        Meter.OUTPUT: [each.output for _, each in levels],
    }
    return {
        line: tuple(
            (above, each.input if price is None else price) for (above, each), price in zip(levels, found, strict=True)
        )
        for line, found in kinds.items()
        if any(price is not None for price in found)
    }


def _tiers(tariff: Agreement | Batch) -> list[tuple[int, TokenPrices]]:
    return [(tier.above_input_tokens, tier.per_million_tokens) for tier in tariff.tiers]


def agreed(
    agreement: Agreement, published: Price | NoPrice, provider: str, model: str, mode: Mode, where: Mapping[str, str]
) -> Price | NoPrice:
    """The price of an agreement that names prices."""
    prices = own(agreement, mode)
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
        contracted=less(prices, agreement.discount_percent),
        listed=published.listed if isinstance(published, Price) and comparable else prices,
        source=agreement.source,
        checked=agreement.checked,
        where=where.get(agreement.id, ""),
    )


def own(agreement: Agreement, mode: Mode) -> Schedule | None:
    """An agreement's own prices before its discount; `None` when it has none for the mode."""
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
    return less(standard, batch.discount_percent or Decimal(0))


def discounted_list(agreement: Agreement, published: Price | NoPrice, where: Mapping[str, str]) -> Price | NoPrice:
    """The list price less an agreement's discount."""
    if isinstance(published, NoPrice):
        reason = f"agreement {agreement.id} is a discount on a list price, but {published.reason}"
        return NoPrice(reason, published.remedy)
    return Price(
        id=f"{NAME}/{agreement.id}/{published.id}",
        provider=published.provider,
        model=published.model,
        mode=published.mode,
        currency=published.currency,
        contracted=less(published.listed, agreement.discount_percent),
        listed=published.listed,
        source=f"{agreement.source}; on {published.source}",
        checked=min(agreement.checked, published.checked),
        where=where.get(agreement.id, ""),
    )


def suffix(mode: Mode) -> str:
    """What a price id ends with: the price of another mode is another price."""
    return "" if mode is Mode.STANDARD else f"/{mode}"
