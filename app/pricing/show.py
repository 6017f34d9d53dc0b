"""Prices as rows for a reader: what holds at an instant, and what charges were billed at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from app.domain.money import total
from app.pricing.book import PriceBook
from app.pricing.charge_types import Charge, Meter, Mode, utc
from app.pricing.price_file import NAME
from app.pricing.schedule import BASE, NoPrice, Price, rates_at, tier_starts


@dataclass(frozen=True)
class ShownPrice:
    """One price of a model for requests above `above` input tokens; prices per million tokens.

    Without a price, `problem` says why and what to do, and there are no rates.
    """

    provider: str
    model: str
    mode: Mode
    price_id: str = ""
    currency: str = ""
    above: int | None = None
    contracted: dict[Meter, Decimal] | None = None
    listed: dict[Meter, Decimal] | None = None
    source: str = ""
    checked: date | None = None
    where: str = ""
    problem: str = ""


@dataclass(frozen=True)
class InfrastructureRow:
    """What one line of compute or orchestration costs, and until when."""

    price_id: str
    meter: Meter
    currency: str
    contracted_unit_price: Decimal
    per: Decimal
    source: str
    checked: date
    where: str
    begins: datetime
    ends: datetime | None


@dataclass(frozen=True)
class BilledPrice:
    """A unit price that charges were billed at: how many, for how much, between which times, from which book."""

    price_id: str
    meter: Meter
    currency: str
    contracted_unit_price: Decimal
    book_digest: str
    charges: int
    contracted_cost: Decimal
    first: datetime
    last: datetime


def price_rows(
    book: PriceBook, models: Iterable[tuple[str, str]], at: datetime, modes: Iterable[Mode] = (Mode.STANDARD,)
) -> tuple[ShownPrice, ...]:
    """The prices of models (provider, model) at an instant, a row for each tier; the unpriced ones say why."""
    wanted = [(provider, model, mode) for provider, model in sorted(set(models)) for mode in modes]
    return tuple(row for provider, model, mode in wanted for row in _rows(book, provider, model, mode, at))


def _rows(book: PriceBook, provider: str, model: str, mode: Mode, at: datetime) -> Iterator[ShownPrice]:
    price = book.find(provider, model, at, mode)
    if isinstance(price, NoPrice):
        yield ShownPrice(provider, model, mode, problem=f"{price.reason}; {price.remedy}")
        return
    for above in sorted({*tier_starts(price.contracted), *tier_starts(price.listed)}):
        yield _row(price, provider, model, above)


def _row(price: Price, provider: str, model: str, above: int) -> ShownPrice:
    return ShownPrice(
        provider=provider,
        model=model,
        mode=price.mode,
        price_id=price.id,
        currency=price.currency,
        above=None if above == BASE else above,
        contracted=rates_at(price.contracted, above + 1),
        listed=rates_at(price.listed, above + 1),
        source=price.source,
        checked=price.checked,
        where=price.where,
    )


def infrastructure_rows(book: PriceBook, at: datetime) -> tuple[InfrastructureRow, ...]:
    """What compute and orchestration cost at an instant; none when no price holds."""
    tariff = book.infrastructure(utc(at))
    if tariff is None:
        return ()
    where = book.where.get(tariff.id, "")
    return tuple(
        InfrastructureRow(
            price_id=f"{NAME}/{tariff.id}",
            meter=line,
            currency=tariff.currency,
            contracted_unit_price=tariff.rate(line),
            per=line.unit.per,
            source=tariff.source,
            checked=tariff.checked,
            where=where,
            begins=tariff.from_,
            ends=tariff.to,
        )
        for line in (Meter.COMPUTE, Meter.STEP_WRITES, Meter.RETAINED_BYTES, Meter.LOG_BYTES)
    )


def billed_prices(charges: Iterable[Charge]) -> tuple[BilledPrice, ...]:
    """Every unit price that the charges carry, in the order of their ids; the unpriced ones carry none."""
    groups: dict[tuple[str, Meter, str, Decimal, str], list[Charge]] = {}
    for charge in charges:
        if charge.price_id is not None and charge.contracted_unit_price is not None and charge.currency is not None:
            key = (charge.price_id, charge.meter, charge.currency, charge.contracted_unit_price, charge.book_digest)
            groups.setdefault(key, []).append(charge)
    return tuple(
        BilledPrice(
            *key,
            charges=len(group),
            contracted_cost=total(charge.contracted_cost for charge in group if charge.contracted_cost is not None),
            first=min(charge.at for charge in group),
            last=max(charge.at for charge in group),
        )
        for key, group in sorted(groups.items())
    )
