"""Finds mistakes in a price book: dates, stale checks, missing prices, lists that disagree, implausible values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase

from app.domain.money import plain
from app.pricing.book import PriceBook, model_place, own_prices
from app.pricing.charge_types import TOKEN_METERS, Meter, Mode, utc
from app.pricing.list_prices import CURRENCY, PACKAGE
from app.pricing.litellm_prices import PACKAGE as OTHER_PACKAGE
from app.pricing.litellm_prices import LiteLLMPrices
from app.pricing.model_facts import model_facts
from app.pricing.price_file import NAME, Agreement, Infrastructure
from app.pricing.providers import COMPONENT_TYPES, known_ids, known_provider, provider_id
from app.pricing.schedule import NoPrice, Schedule, discount_schedule, rates_at, tier_starts


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # amounts are wrong or missing
    WARNING = "warning"  # amounts may be wrong; a person has to check


@dataclass(frozen=True)
class PriceFinding:
    """One possible mistake. where: `file:line` of a price of ours, else a price id. value: what is there. problem: what
    is wrong with it. remedy: what to do."""

    severity: Severity
    where: str
    value: str
    problem: str
    remedy: str


def error(where: str, value: object, problem: str, remedy: str) -> PriceFinding:
    """A finding of severity `error`."""
    return PriceFinding(Severity.ERROR, where, str(value), problem, remedy)


def warning(where: str, value: object, problem: str, remedy: str) -> PriceFinding:
    """A finding of severity `warning`."""
    return PriceFinding(Severity.WARNING, where, str(value), problem, remedy)


# A price per thousand tokens or per token instead of per million is off by 10^3 or 10^6, more than any discount.
_FAR = Decimal(300)
# Currencies worth about as much as the list's. Prices in others cannot be compared with the list's.
_COMPARABLE = frozenset({CURRENCY, "EUR", "GBP", "CHF", "CAD", "AUD"})
# The limits of a plausible price per million tokens. The list's prices are between 0.005 and 600.
_LEAST, _MOST = Decimal("0.0005"), Decimal(6000)
_MAX_INFRASTRUCTURE = {
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


def token_prices(book: PriceBook) -> Iterator[PriceFinding]:
    """Findings about the values of each agreement's own prices."""
    for agreement in book.file.agreements:
        where = book.where.get(agreement.id, NAME)
        if agreement.discount_percent == 100:
            yield warning(where, "100", f"{agreement.id} makes everything free", "give 100 only if nothing is paid")
        schedule = own_prices(agreement, Mode.STANDARD)
        if schedule is None:
            continue
        schedule = discount_schedule(schedule, agreement.discount_percent)
        yield from _ranges(agreement, schedule, where)
        yield from _relations(agreement, schedule, where)
        yield from _batch(agreement, schedule, where)
        if agreement.currency in _COMPARABLE:
            yield from _against_list(book, agreement, schedule, where)


def _ranges(agreement: Agreement, schedule: Schedule, where: str) -> Iterator[PriceFinding]:
    if agreement.currency not in _COMPARABLE:
        return
    for line, steps in schedule.items():
        for _, price in steps:
            if price > _MOST or 0 < price < _LEAST:
                problem = f"{agreement.id}: no model costs that per million {line} tokens"
                yield error(where, plain(price), problem, _UNIT_REMEDY)
    free = [line for line in (Meter.INPUT, Meter.OUTPUT) if not schedule[line][0][1]]
    if free and agreement.discount_percent != 100:
        yield warning(where, "0", f"{agreement.id}: {' and '.join(free)} cost nothing", "give 0 only if that is so")


def _relations(agreement: Agreement, schedule: Schedule, where: str) -> Iterator[PriceFinding]:
    for start in tier_starts(schedule):
        rates = rates_at(schedule, start + 1)
        for line, problem in (
            (Meter.CACHED_INPUT, "cached input costs more than uncached"),
            (Meter.INPUT, "input costs more than output"),
        ):
            dearer, other = rates.get(line), rates[Meter.INPUT if line is Meter.CACHED_INPUT else Meter.OUTPUT]
            if dearer is not None and dearer > other:
                value = f"{plain(dearer)} > {plain(other)}"
                yield warning(where, value, f"{agreement.id}: {problem}", "check whether two prices are swapped")


def _batch(agreement: Agreement, schedule: Schedule, where: str) -> Iterator[PriceFinding]:
    batch = own_prices(agreement, Mode.BATCH)
    if batch is None:
        return
    batch = discount_schedule(batch, agreement.discount_percent)
    for line in batch:
        ours, single = batch[line][0][1], schedule.get(line, schedule[Meter.INPUT])[0][1]
        if _far(ours, single):
            problem = f"{agreement.id}: the batch price seems to be for another number of tokens"
            yield error(where, f"{line} {plain(ours)}, single {plain(single)}", problem, _UNIT_REMEDY)
    dearer = [line for line in batch if line in schedule and batch[line][0][1] > schedule[line][0][1]]
    if dearer:
        value = ", ".join(f"{line} {plain(batch[line][0][1])}" for line in dearer)
        yield warning(where, value, f"{agreement.id}: a batch costs more than a single call", "check the source")


def _against_list(book: PriceBook, agreement: Agreement, schedule: Schedule, where: str) -> Iterator[PriceFinding]:
    """Findings about prices that are far from the list price of the same or the most similar model, or above that of
    the same model."""
    name, listed, same = _comparison(book, agreement)
    ours = rates_at(schedule, 0)
    for line in ours if listed else ():
        theirs = listed.get(line)
        if not theirs:
            continue
        value = f"{line} {plain(ours[line])}, {name} {plain(theirs)}"
        if _far(ours[line], theirs):
            problem = f"{agreement.id}: the price seems to be for another number of tokens"
            yield error(where, value, problem, _UNIT_REMEDY)
        elif same and agreement.currency == CURRENCY and ours[line] > theirs:
            yield warning(where, value, f"{agreement.id}: the price is above the list price", "check the agreement")


def _far(ours: Decimal, theirs: Decimal) -> bool:
    """Whether two prices are too far apart to be for the same number of tokens. A price of zero is never far."""
    return bool(ours and theirs) and (ours * _FAR <= theirs or ours >= theirs * _FAR)


def infrastructure(book: PriceBook) -> Iterator[PriceFinding]:
    """Findings about infrastructure prices in a wrong unit, such as per hour instead of per second."""
    for tariff in book.file.infrastructure:
        for line, most in _MAX_INFRASTRUCTURE.items():
            if tariff.currency in _COMPARABLE and tariff.rate(line) > most:
                where = book.where.get(tariff.id, NAME)
                problem = f"{tariff.id}: {line} costs more than {plain(most)} {_PER[line]}"
                yield warning(where, plain(tariff.rate(line)), problem, f"give the price {_PER[line]}")


def _comparison(book: PriceBook, agreement: Agreement) -> tuple[str, dict[Meter, Decimal], bool]:
    """Name and base prices of the listed model to compare with, and whether it is the agreement's model. If there is
    none, an empty name."""
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


ModelInUse = tuple[str, str]  # provider (component type or id), model
_TOLERANCE = Decimal("0.01")  # a smaller relative difference between two lists is ignored
CALLED_DAYS = 30  # a model that was not called for longer may retire
_NOTICE_DAYS = 30  # so long before a model's retirement the check fails


def check(
    book: PriceBook,
    models_in_use: Iterable[ModelInUse],
    now: datetime,
    litellm_prices: LiteLLMPrices | None = None,
    nameless: Iterable[str] = (),
    called: Iterable[ModelInUse] = (),
) -> tuple[PriceFinding, ...]:
    """All findings about a price book, errors first. Raises ValueError for a `now` without a zone.

    litellm_prices: a second list to compare with. nameless: providers with failed calls whose model is not known.
    called: the models in use that were called in the last `CALLED_DAYS`.
    """
    in_use = sorted(set(models_in_use))
    found = [
        *token_prices(book),
        *infrastructure(book),
        *_dates(book),
        *_unknown_providers(book, in_use),
        *_shadowed(book),
        *_unpriced(book, in_use, utc(now)),
        *_stale(book, utc(now)),
        *_lacking(book, in_use, utc(now)),
        *_disagreements(book, in_use, utc(now), litellm_prices),
        *_nameless(nameless),
        *_retiring(book, sorted(set(called)), utc(now), litellm_prices),
    ]
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))


def _dates(book: PriceBook) -> Iterator[PriceFinding]:
    series: dict[tuple[str, str], list[Agreement]] = {}
    for agreement in book.file.agreements:
        series.setdefault((provider_id(agreement.provider), agreement.model.lower()), []).append(agreement)
    for (provider, model), entries in series.items():
        yield from _periods(book, entries, f"model {model} of provider {provider}", "the list price, or none,")
    yield from _periods(book, book.file.infrastructure, "infrastructure", "no price")


def _unknown_providers(book: PriceBook, in_use: Sequence[ModelInUse]) -> Iterator[PriceFinding]:
    """Findings about agreements with an unknown provider. A misspelt name makes a price that never applies."""
    asked = {provider_id(provider) for provider, _ in in_use}
    for agreement in book.file.agreements:
        wanted = agreement.provider.lower()
        heard_of = known_provider(wanted) or any(fnmatchcase(name, wanted) for name in (*known_ids(), *COMPONENT_TYPES))
        if not heard_of and wanted not in asked:
            remedy = "use a Dapr component type (conversation.openai) or one of: " + ", ".join(known_ids())
            yield warning(
                book.where.get(agreement.id, NAME),
                agreement.provider,
                f"{agreement.id}: no provider of that name is known",
                remedy,
            )


def _periods(
    book: PriceBook, entries: Sequence[Agreement | Infrastructure], what: str, meanwhile: str
) -> Iterator[PriceFinding]:
    """Findings about gaps and overlaps between entries for the same subject. `meanwhile`: the price in a gap."""
    ordered = sorted(entries, key=lambda entry: entry.from_)
    for number, later in enumerate(ordered[1:], start=1):
        earlier = max(ordered[:number], key=_end)  # of the earlier entries, the one with the latest end
        where = book.where.get(later.id, NAME)
        value = f"{earlier.id} ends {_day(earlier.to)}, {later.id} starts {_day(later.from_)}"
        if earlier.to is None or later.from_ < earlier.to:
            problem = f"two prices overlap in time for {what}; the first in the file applies"
            yield error(where, value, problem, f"give {earlier.id} `to: {_day(later.from_)}`")
        elif earlier.to < later.from_:
            yield warning(where, value, f"in between, {meanwhile} applies to {what}", "close the gap")


def _end(entry: Agreement | Infrastructure) -> datetime:
    return entry.to or datetime.max.replace(tzinfo=UTC)


def _day(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%dT%H:%MZ}"


def _shadowed(book: PriceBook) -> Iterator[PriceFinding]:
    """Findings about agreements that never apply, because an earlier one in the file matches all their calls."""
    for number, later in enumerate(book.file.agreements):
        for earlier in book.file.agreements[:number]:
            same = provider_id(earlier.provider) == provider_id(later.provider) and earlier.model == later.model
            if not same and earlier in book.agreements(later.provider, later.model) and _covers(earlier, later):
                where = book.where.get(later.id, NAME)
                yield error(where, later.model, f"{later.id} never applies: {earlier.id} comes first", "put it above")
                break


def _covers(outer: Agreement, inner: Agreement) -> bool:
    ends = outer.to is None or (inner.to is not None and inner.to <= outer.to)
    return outer.from_ <= inner.from_ and ends


def _unpriced(book: PriceBook, in_use: Sequence[ModelInUse], now: datetime) -> Iterator[PriceFinding]:
    for provider, model in in_use:
        price = book.find(provider, model, now)
        if isinstance(price, NoPrice):
            yield error(NAME, f"{provider} {model}", f"in use without a price: {price.reason}", price.remedy)
    if book.infrastructure(now) is None:
        yield error(NAME, f"{now:%Y-%m-%d}", "no infrastructure price applies now", "add one under `infrastructure:`")


def _nameless(providers: Iterable[str]) -> Iterator[PriceFinding]:
    problem = "calls failed before their model was known, so the tokens that they may have used have no price"
    for provider in sorted(providers):
        yield warning("ledger", provider, problem, "nothing to do; `cost reconcile` shows whether they were billed")


def _retiring(
    book: PriceBook, called: Sequence[ModelInUse], now: datetime, litellm_prices: LiteLLMPrices | None
) -> Iterator[PriceFinding]:
    """Models that are still called and that their provider will soon serve no more, or serves no more already."""
    for provider, model in called:
        facts = model_facts(book, litellm_prices, provider, model)
        if facts.retires is None or (days := (facts.retires - now.date()).days) > _NOTICE_DAYS:
            continue
        when = f"retires in {days} day{'s' * (days > 1)}" if days > 0 else "has been retired"
        yield error(
            facts.retires_source,
            f"{provider} {model}, {facts.retires}",
            f"the model {when} and was called in the last {CALLED_DAYS} days",
            "switch to another (`refund-agent provider use NAME --model MODEL`); if the date is wrong, put the right "
            f"one under `models:` in config/{NAME}",
        )


def _stale(book: PriceBook, now: datetime) -> Iterator[PriceFinding]:
    reviewed = book.file.list_prices
    if reviewed.version != book.list_prices.version:
        problem = f"{PACKAGE} {book.list_prices.version} is installed, but finance has checked {reviewed.version}"
        remedy = "check what changed, then set list_prices.version and checked"
        yield warning(NAME, reviewed.version, problem, remedy)
    yield from _age(book, NAME, f"{PACKAGE} {reviewed.version}", reviewed.checked, now)
    for agreement in (*book.file.agreements, *book.file.infrastructure):
        if agreement.to is None or agreement.to > now:
            yield from _age(book, book.where.get(agreement.id, NAME), agreement.id, agreement.checked, now)
    for number, entry in enumerate(book.file.models):
        yield from _age(book, book.where.get(model_place(number), NAME), f"model {entry.model}", entry.checked, now)


def _age(book: PriceBook, where: str, name: str, checked: date, now: datetime) -> Iterator[PriceFinding]:
    age = now.date() - checked
    if age > book.file.stale_after:
        problem = f"{name} was checked {age.days} days ago, more than {book.file.stale_after_days}"
        yield warning(where, checked, problem, "compare it with its source and set `checked`")
    if age.days < 0:
        yield warning(where, checked, f"{name}: the date of its check is in the future", "correct `checked`")


def _disagreements(
    book: PriceBook, in_use: Sequence[ModelInUse], now: datetime, other: LiteLLMPrices | None
) -> Iterator[PriceFinding]:
    """Findings about models in use for which the two published lists differ and finance has no price of its own."""
    for provider, model in in_use if other else ():
        price = book.find(provider, model, now)
        theirs = other.find(provider, model) if other else None
        if isinstance(price, NoPrice) or theirs is None or _settled(book, provider, model, now):
            continue
        ours = rates_at(price.listed, 0)
        apart = [line for line in TOKEN_METERS if _differ(ours.get(line), theirs.get(line))]
        if apart:
            value = ", ".join(f"{line} {_told(ours, line)} or {_told(theirs, line)}" for line in apart)
            problem = f"{PACKAGE} and {OTHER_PACKAGE} disagree on {provider} {model}, per million tokens"
            remedy = f"look at {price.source}, then add the right price to config/{NAME}"
            yield warning(price.id, value, problem, remedy)


def _lacking(book: PriceBook, in_use: Sequence[ModelInUse], now: datetime) -> Iterator[PriceFinding]:
    """Findings about agreements on models in use that lack a price for a kind of token for which the list has one."""
    for provider, model in in_use:
        agreement = next((candidate for candidate in book.agreements(provider, model) if candidate.holds(now)), None)
        schedule = own_prices(agreement, Mode.STANDARD) if agreement else None
        listed = book.listed(provider, model)
        published = listed.at(now, Mode.STANDARD) if listed else None
        if agreement is None or schedule is None or published is None:
            continue
        ours, theirs = rates_at(schedule, 0), rates_at(published.schedule, 0)
        missing = [line for line in TOKEN_METERS if line in theirs and line not in ours]
        if missing:
            value = ", ".join(f"{line} {_told(ours, line)}, listed {plain(theirs[line])}" for line in missing)
            problem = (
                f"{agreement.id} lacks a price for some tokens of {provider} {model} that have their own in {PACKAGE}"
            )
            yield warning(book.where.get(agreement.id, NAME), value, problem, "add the agreed prices")


def _settled(book: PriceBook, provider: str, model: str, now: datetime) -> bool:
    """Whether finance has its own prices for a model."""
    agreement = next((candidate for candidate in book.agreements(provider, model) if candidate.holds(now)), None)
    return agreement is not None and agreement.per_million_tokens is not None


def _told(rates: Mapping[Meter, Decimal], line: Meter) -> str:
    """The price of a kind of token or, if it has none, the price at which it is charged."""
    return plain(rates[line]) if line in rates else f"none (charged as input, {plain(rates[Meter.INPUT])})"


def _differ(ours: Decimal | None, theirs: Decimal | None) -> bool:
    """Whether two lists differ on a kind of token, or only one of them has a price for it."""
    if ours is None or theirs is None:
        return ours is not theirs
    return abs(ours - theirs) > _TOLERANCE * max(ours, theirs)
