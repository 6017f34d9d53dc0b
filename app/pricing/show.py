"""Prices as rows for people: the prices at an instant, and the prices that charges were billed at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from app.domain.money import total
from app.pricing.book import PriceBook
from app.pricing.charge_types import Charge, Meter, Mode, utc
from app.pricing.price_file import NAME
from app.pricing.schedule import BASE, NoPrice, rates_at, tier_starts


@dataclass(frozen=True)
class ShownPrice:
    """The price of a model for requests with more than `above` input tokens (None: any number), per million tokens.

    If the model has no price, `problem` says why and what to do, and `contracted` and `listed` are None.
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
    """The price of one meter of compute or orchestration, and the time in which it applies. `per`: the number of units
    that the unit price is for."""

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
    """A unit price that charges were billed at, with their number, their sum, and the times of the first and last."""

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
    """The prices of models, given as (provider, model), at an instant. One row for each mode and tier; for a model
    without a price, one row with the problem."""
    wanted = [(provider, model, mode) for provider, model in sorted(set(models)) for mode in modes]
    return tuple(row for provider, model, mode in wanted for row in _rows(book, provider, model, mode, at))


def _rows(book: PriceBook, provider: str, model: str, mode: Mode, at: datetime) -> Iterator[ShownPrice]:
    price = book.find(provider, model, at, mode)
    if isinstance(price, NoPrice):
        yield ShownPrice(provider, model, mode, problem=f"{price.reason}; {price.remedy}")
        return
    for above in sorted({*tier_starts(price.contracted), *tier_starts(price.listed)}):
        yield ShownPrice(
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
    """The prices of compute and orchestration at an instant; empty if none applies."""
    tariff = book.infrastructure(utc(at))
    if tariff is None:
        return ()
    where = book.where.get(tariff.id, "")
    return tuple(
        InfrastructureRow(
            price_id=f"{NAME}/{tariff.id}",
            meter=meter,
            currency=tariff.currency,
            contracted_unit_price=tariff.rate(meter),
            per=meter.unit.per,
            source=tariff.source,
            checked=tariff.checked,
            where=where,
            begins=tariff.from_,
            ends=tariff.to,
        )
        for meter in (Meter.COMPUTE, Meter.STEP_WRITES, Meter.RETAINED_BYTES, Meter.LOG_BYTES)
    )


def billed_prices(charges: Iterable[Charge]) -> tuple[BilledPrice, ...]:
    """The unit prices of the charges, in the order of their price ids. Charges without a price are left out."""
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
