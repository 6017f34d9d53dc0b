"""Figures for people: money, tokens, shares, durations, instants. Command line, pages and lab use the same. Pure.

`~` marks what is estimated or a share of a total, `?` what is not known, which is not zero. What is not zero is never
shown as zero: where rounding would do that, the bound is shown (`<0.01`, `<1 ms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from app.domain.models import Refund, UsageBasis
from app.domain.money import ZERO, shown

ESTIMATED, UNKNOWN = "~", "?"
NOTHING = "\N{EN DASH}"  # a cell in which nothing can stand

# Money.

_CENTS, _MORE, _FULL = 2, 4, 6
_ONE_CENT = Decimal("0.01")


def rounded(number: Decimal, places: int = _FULL) -> str:
    """A number to so many places, half to even: `1,234.57`; `<0.01` or `>-0.01` for one that would be shown as zero."""
    found = Decimal(shown(number, places))
    if number and not found:
        unit = f"{Decimal(1).scaleb(-places):f}"
        return f"<{unit}" if number > 0 else f">-{unit}"
    return f"{found or abs(found):,f}"


def money(amount: Decimal, currency: str) -> str:
    """An amount with all its digits: `9,999.00 CHF`."""
    return f"{amount:,f} {currency}"


def refund(made: Refund) -> str:
    """A refund in a sentence: `49.90 EUR for order AC-10442`."""
    return f"{money(made.amount, made.currency)} for order {made.order_id}"


@dataclass(frozen=True, slots=True)
class Digits:
    """To how many places the amounts of one table or page are shown, by currency. Sums are of the exact amounts, so
    where any amount is `rounded` they may differ in the last place from what is shown."""

    places: Mapping[str, int]
    rounded: bool

    def show(self, amount: Decimal, currency: str) -> str:
        """An amount without its currency."""
        return rounded(amount, self.places.get(currency, _FULL))

    def notes(self) -> Iterator[str]:
        """What a reader must know of the amounts; nothing when they are exact."""
        if self.rounded:
            units = " and ".join(dict.fromkeys(f"{Decimal(1).scaleb(-places):f}" for places in self.places.values()))
            yield f"amounts are rounded to {units}, sums are of the exact ones"


def digits_for(amounts: Iterable[tuple[Decimal, str]], *, exact: bool = False) -> Digits:
    """For a table with these amounts, each with its currency: cents, or more places where even the largest is so small
    that cents would say nothing; with `exact`, so many that none is rounded."""
    needed: dict[str, int] = {}
    largest: dict[str, Decimal] = {}
    for amount, currency in amounts:
        behind = -int(amount.normalize().as_tuple().exponent)
        needed[currency] = max(needed.get(currency, _CENTS), behind)
        largest[currency] = max(largest.get(currency, ZERO), abs(amount))
    if exact:
        return Digits(needed, rounded=False)
    places = {currency: min(_places_for(amount), needed[currency]) for currency, amount in largest.items()}
    return Digits(places, rounded=any(places[currency] < needed[currency] for currency in places))


def _places_for(largest: Decimal) -> int:
    """Places at which the largest amount of a table has two figures or more."""
    return _CENTS if largest >= 1 else _MORE if largest >= _ONE_CENT else _FULL


# Tokens and other counts.


def tokens(count: int | None, known: UsageBasis) -> str:
    """A number of tokens: `811`, `~811` when it is not as reported, `?` when nobody knows it."""
    return tokens_sum([(count, known)])


def tokens_sum(parts: Iterable[tuple[int | Decimal | None, UsageBasis]]) -> str:
    """The sum of what is known, with the marks of its parts: `~2,400 + ?`; `0` of no parts. A part is taken to be zero
    only where no model can have worked, so zero is never an estimate."""
    counted = [(None if known is UsageBasis.UNREPORTED else count, known) for count, known in parts]
    found = [(count, known) for count, known in counted if count is not None]
    if counted and not found:
        return UNKNOWN
    mark = ESTIMATED if any(count and known is not UsageBasis.REPORTED for count, known in found) else ""
    missing = f" + {UNKNOWN}" if len(found) < len(counted) else ""
    return f"{mark}{int(sum(count for count, _ in found)):,}{missing}"


def size(count: int) -> str:
    """A number of bytes: `9,999 B`, `12.3 kB`."""
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:,.1f} kB"


# Shares.

_SMALL_SHARE = Decimal("0.0995")


def share_places(share: Decimal) -> int:
    """Places of a share in per cent at which two or three figures are shown."""
    return 1 if abs(share) >= _SMALL_SHARE else 2


def percent(share: Decimal, places: int | None = None) -> str:
    """A share: `15.5 %`, `3.60 %`. Only nothing is `0 %`, and only all of it is `100 %`: `<0.01 %`, `>99.9 %`."""
    places = share_places(share) if places is None else places
    if 0 < share < 1 and Decimal(shown(100 * share, places)) == 100:
        return f">{100 - Decimal(1).scaleb(-places):f} %"
    return f"{rounded(100 * share, places)} %"


# Durations and instants.

_MILLISECOND, _NONE = timedelta(milliseconds=1), timedelta(0)
_SECOND, _MINUTE, _HOUR, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def duration(length: timedelta, *, estimated: bool = False) -> str:
    """A duration in two units at most: `312 ms`, `5.00 s`, `59.9 s`, `2 min 13 s`, `3 d 4 h`. It is cut, not rounded,
    so `1 min 0 s` is at least a minute; what is shorter than a millisecond is `<1 ms`."""
    sign, positive = ("-", -length) if length < _NONE else ("", length)
    if _NONE < positive < _MILLISECOND:
        return ">-1 ms" if sign else "<1 ms"
    return f"{ESTIMATED if estimated else ''}{sign}{_in_two_units(positive)}"


def _in_two_units(length: timedelta) -> str:
    if length < _SECOND:
        return f"{length // _MILLISECOND} ms"
    if length < 10 * _SECOND:
        return f"{length // _SECOND}.{length % _SECOND // (10 * _MILLISECOND):02d} s"
    if length < _MINUTE:
        return f"{length // _SECOND}.{length % _SECOND // (100 * _MILLISECOND)} s"
    if length < _HOUR:
        return f"{length // _MINUTE} min {length % _MINUTE // _SECOND} s"
    if length < _DAY:
        return f"{length // _HOUR} h {length % _HOUR // _MINUTE} min"
    return f"{length // _DAY:,} d {length % _DAY // _HOUR} h"


def elapsed(since: timedelta, step: timedelta) -> str:
    """A time since a start, as finely as marks that lie `step` apart need: `0.25 s`, `1:05`, `2:13:13`."""
    places = len(f"{step.microseconds:06d}".rstrip("0"))
    fraction = f".{since.microseconds:06d}"[: places + 1] if places else ""
    minutes, seconds = divmod(since.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if since < _MINUTE:
        return f"{seconds}{fraction} s"
    if since < _HOUR:
        return f"{minutes}:{seconds:02d}{fraction}"
    return (f"{since.days:,} d " if since.days else "") + f"{hours}:{minutes:02d}:{seconds:02d}{fraction}"


def instant(at: datetime | str | None) -> str:
    """An instant in UTC, to the second: `2026-11-30 12:00:07`; empty for None. A text is ISO 8601, as the API gives."""
    return f"{_utc(at):%Y-%m-%d %H:%M:%S}" if at else ""


def minute(at: datetime | str) -> str:
    """An instant in UTC, to the minute: `2026-11-30 12:00`."""
    return f"{_utc(at):%Y-%m-%d %H:%M}"


def _utc(at: datetime | str) -> datetime:
    """The instant in UTC; one without a zone is in UTC already."""
    known = datetime.fromisoformat(at) if isinstance(at, str) else at
    return known.replace(tzinfo=UTC) if known.tzinfo is None else known.astimezone(UTC)


def day(at: datetime) -> str:
    """The day of an instant, in UTC: `2026-11-30`."""
    return f"{_utc(at):%Y-%m-%d}"


def clock_time(at: datetime) -> str:
    """The time of day of an instant, in UTC, to the millisecond: `12:00:07.400`."""
    at = _utc(at)
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"


def iso(at: datetime) -> str:
    """An instant for a machine, to the millisecond: `2026-11-30T12:00:07.400Z`."""
    return _utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Names.


def digest(value: str) -> str:
    """The beginning of a digest, enough to tell a few apart."""
    return value[:12]
