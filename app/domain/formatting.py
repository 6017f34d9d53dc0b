"""Formats money, tokens, shares, durations and instants for people, the same way in command line, pages and lab.

`~` marks an estimate or a share of a total, `?` an unknown value. A value other than zero is never shown as zero: if
rounding would do that, the bound is shown (`<0.01`, `<1 ms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from app.domain.models import Refund, UsageBasis
from app.domain.money import ZERO, shown

ESTIMATED, UNKNOWN = "~", "?"
NOTHING = "\N{EN DASH}"  # the text of a cell without a value

# Money.

_CENTS, _MORE, _FULL = 2, 4, 6
_ONE_CENT = Decimal("0.01")


def rounded(number: Decimal, places: int = _FULL) -> str:
    """Rounds half to even: `1,234.57`; `<0.01` or `>-0.01` for a number that would be shown as zero."""
    result = Decimal(shown(number, places))
    if number and not result:
        unit = f"{Decimal(1).scaleb(-places):f}"
        return f"<{unit}" if number > 0 else f">-{unit}"
    return f"{result or abs(result):,f}"


def money(amount: Decimal, currency: str) -> str:
    """Formats an amount with all its digits: `9,999.00 CHF`."""
    return f"{amount:,f} {currency}"


def refund(value: Refund) -> str:
    """Formats a refund for use in a sentence: `49.90 EUR for order AC-10442`."""
    return f"{money(value.amount, value.currency)} for order {value.order_id}"


@dataclass(frozen=True, slots=True)
class Digits:
    """The decimal places of the amounts in one table or page, by currency; `rounded` if any amount is rounded. Sums are
    computed from exact amounts, so they may differ in the last place from the sum of the shown ones."""

    places: Mapping[str, int]
    rounded: bool

    def show(self, amount: Decimal, currency: str) -> str:
        """Formats an amount without its currency."""
        return rounded(amount, self.places.get(currency, _FULL))

    def notes(self) -> Iterator[str]:
        """A note about the rounding; nothing if no amount is rounded."""
        if self.rounded:
            units = " and ".join(dict.fromkeys(f"{Decimal(1).scaleb(-places):f}" for places in self.places.values()))
            yield f"amounts are rounded to {units}, sums are of the exact ones"


def digits_for(amounts: Iterable[tuple[Decimal, str]], *, exact: bool = False) -> Digits:
    """The digits for a table with these amounts, each with its currency: cents, or more places if even the largest
    amount of a currency is too small for cents; with `exact`, enough places for every digit."""
    needed: dict[str, int] = {}
    largest: dict[str, Decimal] = {}
    for amount, currency in amounts:
        own_places = -int(amount.normalize().as_tuple().exponent)
        needed[currency] = max(needed.get(currency, _CENTS), own_places)
        largest[currency] = max(largest.get(currency, ZERO), abs(amount))
    if exact:
        return Digits(needed, rounded=False)
    places = {currency: min(_places_for(amount), needed[currency]) for currency, amount in largest.items()}
    return Digits(places, rounded=any(places[currency] < needed[currency] for currency in places))


def _places_for(largest: Decimal) -> int:
    """The places at which the largest amount of a table shows two figures or more."""
    return _CENTS if largest >= 1 else _MORE if largest >= _ONE_CENT else _FULL


# Tokens and other counts.


def tokens(count: int | None, known: UsageBasis) -> str:
    """Formats a number of tokens: `811`, `~811` if estimated, `?` if unknown."""
    return tokens_sum([(count, known)])


def tokens_sum(parts: Iterable[tuple[int | Decimal | None, UsageBasis]]) -> str:
    """Formats the sum of the known parts with their marks: `~2,400 + ?`; `0` for no parts. A zero gets no mark, since a
    part is zero only if no model can have worked."""
    counted = [(None if basis is UsageBasis.UNREPORTED else count, basis) for count, basis in parts]
    known = [(count, basis) for count, basis in counted if count is not None]
    if counted and not known:
        return UNKNOWN
    mark = ESTIMATED if any(count and basis is not UsageBasis.REPORTED for count, basis in known) else ""
    missing = f" + {UNKNOWN}" if len(known) < len(counted) else ""
    return f"{mark}{int(sum(count for count, _ in known)):,}{missing}"


def size(count: int) -> str:
    """Formats a number of bytes: `9,999 B`, `12.3 kB`."""
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:,.1f} kB"


# Shares.

_SMALL_SHARE = Decimal("0.0995")


def share_places(share: Decimal) -> int:
    """The decimal places at which a share in per cent shows two or three figures."""
    return 1 if abs(share) >= _SMALL_SHARE else 2


def percent(share: Decimal, places: int | None = None) -> str:
    """Formats a share: `15.5 %`, `3.60 %`. Only 0 gives `0 %` and only 1 gives `100 %`, else `<0.01 %`, `>99.9 %`."""
    places = share_places(share) if places is None else places
    if 0 < share < 1 and Decimal(shown(100 * share, places)) == 100:
        return f">{100 - Decimal(1).scaleb(-places):f} %"
    return f"{rounded(100 * share, places)} %"


# Durations and instants.

_MILLISECOND, _NONE = timedelta(milliseconds=1), timedelta(0)
_SECOND, _MINUTE, _HOUR, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def duration(length: timedelta, *, estimated: bool = False) -> str:
    """Formats a duration in at most two units: `312 ms`, `5.00 s`, `59.9 s`, `2 min 13 s`, `3 d 4 h`. It is truncated,
    so `1 min 0 s` is at least a minute; less than a millisecond is `<1 ms`."""
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
    """Formats the time since a start for axis marks `step` apart, as precisely as they need: `0.25 s`, `1:05`."""
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
    """Formats an instant in UTC, to the second: `2026-11-30 12:00:07`; empty for None. A string must be ISO 8601."""
    return f"{_utc(at):%Y-%m-%d %H:%M:%S}" if at else ""


def minute(at: datetime | str) -> str:
    """Formats an instant in UTC, to the minute: `2026-11-30 12:00`."""
    return f"{_utc(at):%Y-%m-%d %H:%M}"


def _utc(at: datetime | str) -> datetime:
    """The instant in UTC; one without a time zone is taken as UTC."""
    parsed = datetime.fromisoformat(at) if isinstance(at, str) else at
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def day(at: datetime) -> str:
    """Formats the day of an instant, in UTC: `2026-11-30`."""
    return f"{_utc(at):%Y-%m-%d}"


def clock_time(at: datetime) -> str:
    """Formats the time of day of an instant, in UTC, to the millisecond: `12:00:07.400`."""
    at = _utc(at)
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"


def iso(at: datetime) -> str:
    """Formats an instant as ISO 8601 in UTC, to the millisecond: `2026-11-30T12:00:07.400Z`."""
    return _utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Names.


def digest(value: str) -> str:
    """The first 12 characters of a digest, which identify it among a few."""
    return value[:12]
