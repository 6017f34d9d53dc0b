"""Looks for prices that cannot be meant: wrong units, absurd values, cached dearer than plain."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from app.domain.money import plain
from app.pricing.agreements import own
from app.pricing.book import PriceBook
from app.pricing.charge_kinds import Meter, Mode
from app.pricing.list_prices import CURRENCY
from app.pricing.price_file import NAME, Agreement
from app.pricing.price_findings import Finding, error, warning
from app.pricing.providers import provider_id
from app.pricing.schedule import Schedule, less, rates_at, tier_starts

# A price per thousand or per token, put where one per million belongs, is off by 10^3 or 10^6; no discount is.
_FAR = Decimal(300)
# Currencies worth about as much as the list's: others would be far apart by themselves.
_COMPARABLE = frozenset({CURRENCY, "EUR", "GBP", "CHF", "CAD", "AUD"})
# The list's own prices lie between 0.005 and 600 per million tokens.
_LEAST, _MOST = Decimal("0.0005"), Decimal(6000)
_MOST_INFRASTRUCTURE = {
    Meter.COMPUTE: Decimal("0.01"),  # 36 an hour
    Meter.STEP_WRITES: Decimal(100),
    Meter.RETAINED_BYTES: Decimal(100),
    Meter.LOG_BYTES: Decimal(100),
}
_PER = {
    Meter.COMPUTE: "per second",
    Meter.STEP_WRITES: "per million writes",
    Meter.RETAINED_BYTES: "per GB and month",
    Meter.LOG_BYTES: "per GB",
}
_UNIT_REMEDY = "give the price of a million tokens"


def token_prices(book: PriceBook) -> Iterator[Finding]:
    """The findings about each agreement's own values."""
    for agreement in book.file.agreements:
        where = book.where.get(agreement.id, NAME)
        if agreement.discount_percent == 100:
            yield warning(where, "100", f"{agreement.id} makes everything free", "say 0 only where nothing is paid")
        schedule = own(agreement, Mode.STANDARD)
        if schedule is None:
            continue
        schedule = less(schedule, agreement.discount_percent)
        yield from _ranges(agreement, schedule, where)
        yield from _relations(agreement, schedule, where)
        yield from _batch(agreement, schedule, where)
        if agreement.currency in _COMPARABLE:
            yield from _against_list(book, agreement, schedule, where)


def _ranges(agreement: Agreement, schedule: Schedule, where: str) -> Iterator[Finding]:
    if agreement.currency not in _COMPARABLE:
        return
    for line, steps in schedule.items():
        for _, price in steps:
            if price > _MOST or 0 < price < _LEAST:
                problem = f"{agreement.id}: no model costs that per million {line} tokens"
                yield error(where, plain(price), problem, _UNIT_REMEDY)
    free = [line for line in (Meter.INPUT, Meter.OUTPUT) if not schedule[line][0][1]]
    if free and agreement.discount_percent != 100:
        yield warning(where, "0", f"{agreement.id}: {' and '.join(free)} cost nothing", "say 0 only where that is so")


def _relations(agreement: Agreement, schedule: Schedule, where: str) -> Iterator[Finding]:
    for start in tier_starts(schedule):
        rates = rates_at(schedule, start + 1)
        for line, problem in (
            (Meter.CACHED_INPUT, "cached input is dearer than uncached"),
            (Meter.INPUT, "input is dearer than output"),
        ):
            dearer, other = rates.get(line), rates[Meter.INPUT if line is Meter.CACHED_INPUT else Meter.OUTPUT]
            if dearer is not None and dearer > other:
                value = f"{plain(dearer)} > {plain(other)}"
                yield warning(where, value, f"{agreement.id}: {problem}", "look whether two prices were exchanged")


def _batch(agreement: Agreement, schedule: Schedule, where: str) -> Iterator[Finding]:
    batch = own(agreement, Mode.BATCH)
    if batch is None:
        return
    batch = less(batch, agreement.discount_percent)
    for line in batch:
        ours, single = batch[line][0][1], schedule.get(line, schedule[Meter.INPUT])[0][1]
        if _far(ours, single):
            problem = f"{agreement.id}: a batch price for another number of tokens, it seems"
            yield error(where, f"{line} {plain(ours)}, single {plain(single)}", problem, _UNIT_REMEDY)
    dearer = [line for line in batch if line in schedule and batch[line][0][1] > schedule[line][0][1]]
    if dearer:
        value = ", ".join(f"{line} {plain(batch[line][0][1])}" for line in dearer)
        yield warning(where, value, f"{agreement.id}: a batch is dearer than a single call", "look at the source")


def _against_list(book: PriceBook, agreement: Agreement, schedule: Schedule, where: str) -> Iterator[Finding]:
    """Far off the list price of the same or the most similar model, or dearer than the same model's."""
    name, listed, same = _comparison(book, agreement)
    ours = rates_at(schedule, 0)
    for line in ours if listed else ():
        theirs = listed.get(line)
        if not theirs:
            continue
        value = f"{line} {plain(ours[line])}, {name} {plain(theirs)}"
        if _far(ours[line], theirs):
            yield error(where, value, f"{agreement.id}: a price for another number of tokens, it seems", _UNIT_REMEDY)
        elif same and agreement.currency == CURRENCY and ours[line] > theirs:
            yield warning(where, value, f"{agreement.id}: more than the list price is paid", "look at the agreement")


def _far(ours: Decimal, theirs: Decimal) -> bool:
    """Whether they are further apart than two prices for the same number of tokens; free is another matter."""
    return bool(ours and theirs) and (ours * _FAR <= theirs or ours >= theirs * _FAR)


def infrastructure(book: PriceBook) -> Iterator[Finding]:
    """The findings about what running costs: a price per hour for one per second, or per write for one per million."""
    for tariff in book.file.infrastructure:
        for line, most in _MOST_INFRASTRUCTURE.items():
            if tariff.currency in _COMPARABLE and tariff.rate(line) > most:
                where = book.where.get(tariff.id, NAME)
                problem = f"{tariff.id}: {line} costs more than {plain(most)} {_PER[line]}"
                yield warning(where, plain(tariff.rate(line)), problem, f"give the price {_PER[line]}")


def _comparison(book: PriceBook, agreement: Agreement) -> tuple[str, dict[Meter, Decimal], bool]:
    """Name and base prices of the listed model to compare with, and whether it is the very model."""
    at: datetime = agreement.from_
    provider = provider_id(agreement.provider)
    wanted = agreement.model.lower().replace("*", "").replace("?", "")
    similar = difflib.get_close_matches(wanted, book.list_prices.models(provider), n=1)
    for name in (wanted, *similar):
        listed = book.list_prices.find(provider, name)
        published = listed.at(at, Mode.STANDARD) if listed else None
        if listed and published:
            return listed.model, rates_at(published.schedule, 0), name == agreement.model.lower()
    return "", {}, False
