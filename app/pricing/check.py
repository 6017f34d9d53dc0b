"""Looks for mistakes in a price book: dates, ages, missing prices, lists that disagree; `sanity` looks at values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase

from app.domain.money import plain
from app.pricing.agreements import own
from app.pricing.book import PriceBook
from app.pricing.charge_kinds import TOKEN_LINES, Meter, Mode
from app.pricing.charge_types import utc
from app.pricing.list_prices import PACKAGE
from app.pricing.litellm_prices import PACKAGE as OTHER_PACKAGE
from app.pricing.litellm_prices import SecondOpinion
from app.pricing.price_file import NAME, Agreement, Infrastructure
from app.pricing.price_findings import Finding, Severity, error, warning
from app.pricing.providers import COMPONENT_TYPES, known_ids, known_provider, provider_id
from app.pricing.sanity import infrastructure, token_prices
from app.pricing.schedule import NoPrice, rates_at

ModelInUse = tuple[str, str]  # provider (component type or id), model
_TOLERANCE = Decimal("0.01")  # lists that differ by less agree


def check(
    book: PriceBook,
    models_in_use: Iterable[ModelInUse],
    now: datetime,
    second_opinion: SecondOpinion | None = None,
    nameless: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """All findings, errors first. Changes nothing and asks nobody. Raises ValueError for a `now` without a zone.

    nameless: providers with calls that failed before anybody said which model it was.
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
        *_disagreements(book, in_use, utc(now), second_opinion),
        *_nameless(nameless),
    ]
    return tuple(sorted(found, key=lambda each: each.severity is not Severity.ERROR))


def _dates(book: PriceBook) -> Iterator[Finding]:
    series: dict[tuple[str, str], list[Agreement]] = {}
    for each in book.file.agreements:
        series.setdefault((provider_id(each.provider), each.model.lower()), []).append(each)
    for (provider, model), entries in series.items():
        yield from _periods(book, entries, f"model {model} of provider {provider}", "the list price, or none,")
    yield from _periods(book, book.file.infrastructure, "infrastructure", "no price")


def _unknown_providers(book: PriceBook, in_use: Sequence[ModelInUse]) -> Iterator[Finding]:
    """Agreements with a provider of whom nobody here has heard: a slip of the pen makes a price that never applies."""
    asked = {provider_id(provider) for provider, _ in in_use}
    for each in book.file.agreements:
        wanted = each.provider.lower()
        heard_of = known_provider(wanted) or any(fnmatchcase(name, wanted) for name in (*known_ids(), *COMPONENT_TYPES))
        if not heard_of and wanted not in asked:
            remedy = "use a Dapr component type (conversation.openai) or one of: " + ", ".join(known_ids())
            yield warning(
                book.where.get(each.id, NAME), each.provider, f"{each.id}: no provider of that name is known", remedy
            )


def _periods(
    book: PriceBook, entries: Sequence[Agreement | Infrastructure], what: str, meanwhile: str
) -> Iterator[Finding]:
    """Gaps and overlaps among entries for the same thing."""
    ordered = sorted(entries, key=lambda each: each.from_)
    for number, later in enumerate(ordered[1:], start=1):
        earlier = max(ordered[:number], key=_end)  # the one that reaches furthest
        where = book.where.get(later.id, NAME)
        value = f"{earlier.id} ends {_day(earlier.to)}, {later.id} begins {_day(later.from_)}"
        if earlier.to is None or later.from_ < earlier.to:
            problem = f"two prices hold at once for {what}; the first in the file applies"
            yield error(where, value, problem, f"give {earlier.id} `to: {_day(later.from_)}`")
        elif earlier.to < later.from_:
            yield warning(where, value, f"in between, {meanwhile} holds for {what}", "close the gap")


def _end(entry: Agreement | Infrastructure) -> datetime:
    return entry.to or datetime.max.replace(tzinfo=UTC)


def _day(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d}" if at.time() == datetime.min.time() else f"{at:%Y-%m-%dT%H:%MZ}"


def _shadowed(book: PriceBook) -> Iterator[Finding]:
    """Agreements that can never apply, since an earlier one in the file matches all that they do."""
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


def _unpriced(book: PriceBook, in_use: Sequence[ModelInUse], now: datetime) -> Iterator[Finding]:
    for provider, model in in_use:
        price = book.find(provider, model, now)
        if isinstance(price, NoPrice):
            yield error(NAME, f"{provider} {model}", f"in use without a price: {price.reason}", price.remedy)
    if book.infrastructure(now) is None:
        yield error(NAME, f"{now:%Y-%m-%d}", "no infrastructure price holds now", "add one under `infrastructure:`")


def _nameless(providers: Iterable[str]) -> Iterator[Finding]:
    problem = "calls failed before anybody said which model it was: what they may have used has no price"
    for provider in sorted(providers):
        yield warning("ledger", provider, problem, "nothing: `cost reconcile` says whether the provider billed them")


def _stale(book: PriceBook, now: datetime) -> Iterator[Finding]:
    looked = book.file.list_prices
    if looked.version != book.list_prices.version:
        problem = f"{PACKAGE} {book.list_prices.version} is installed, but finance looked at {looked.version}"
        remedy = "compare what changed, then set list_prices.version and checked"
        yield warning(NAME, looked.version, problem, remedy)
    yield from _age(book, NAME, f"{PACKAGE} {looked.version}", looked.checked, now)
    for each in (*book.file.agreements, *book.file.infrastructure):
        if each.to is None or each.to > now:
            yield from _age(book, book.where.get(each.id, NAME), each.id, each.checked, now)


def _age(book: PriceBook, where: str, name: str, checked: date, now: datetime) -> Iterator[Finding]:
    age = now.date() - checked
    if age > book.file.stale_after:
        problem = f"{name} was looked at {age.days} days ago, more than {book.file.stale_after_days}"
        yield warning(where, checked, problem, "compare it with its source and set `checked`")
    if age.days < 0:
        yield warning(where, checked, f"{name} was looked at in the future", "correct `checked`")


def _disagreements(
    book: PriceBook, in_use: Sequence[ModelInUse], now: datetime, other: SecondOpinion | None
) -> Iterator[Finding]:
    """Where the two published lists differ on a model in use. Finance's own price settles it."""
    for provider, model in in_use if other else ():
        price = book.find(provider, model, now)
        theirs = other.find(provider, model) if other else None
        if isinstance(price, NoPrice) or theirs is None or _settled(book, provider, model, now):
            continue
        ours = rates_at(price.listed, 0)
        apart = [line for line in TOKEN_LINES if _differ(ours.get(line), theirs.get(line))]
        if apart:
            value = ", ".join(f"{line} {_told(ours, line)} or {_told(theirs, line)}" for line in apart)
            problem = f"{PACKAGE} and {OTHER_PACKAGE} disagree on {provider} {model}, per million tokens"
            yield warning(price.id, value, problem, f"look at {price.source}; put what is right into config/{NAME}")


def _lacking(book: PriceBook, in_use: Sequence[ModelInUse], now: datetime) -> Iterator[Finding]:
    """Agreements that price a model in use, but not a kind of its tokens that the published list prices apart."""
    for provider, model in in_use:
        agreement = next((each for each in book.agreements(provider, model) if each.holds(now)), None)
        schedule = own(agreement, Mode.STANDARD) if agreement else None
        listed = book.listed(provider, model)
        published = listed.at(now, Mode.STANDARD) if listed else None
        if agreement is None or schedule is None or published is None:
            continue
        ours, theirs = rates_at(schedule, 0), rates_at(published.schedule, 0)
        missing = [line for line in TOKEN_LINES if line in theirs and line not in ours]
        if missing:
            value = ", ".join(f"{line} {_told(ours, line)}, listed {plain(theirs[line])}" for line in missing)
            problem = f"{agreement.id} has no price for some tokens of {provider} {model} that {PACKAGE} prices apart"
            yield warning(book.where.get(agreement.id, NAME), value, problem, "add what was agreed for them")


def _settled(book: PriceBook, provider: str, model: str, now: datetime) -> bool:
    """Whether finance has put prices of its own."""
    agreement = next((each for each in book.agreements(provider, model) if each.holds(now)), None)
    return agreement is not None and agreement.per_million_tokens is not None


def _told(rates: Mapping[Meter, Decimal], line: Meter) -> str:
    """A kind's price; what it is charged at where it has none."""
    return plain(rates[line]) if line in rates else f"none (charged as input, {plain(rates[Meter.INPUT])})"


def _differ(ours: Decimal | None, theirs: Decimal | None) -> bool:
    """Whether two lists differ on a kind of token; also where one of them alone has a price for it."""
    if ours is None or theirs is None:
        return ours is not theirs
    return abs(ours - theirs) > _TOLERANCE * max(ours, theirs)
