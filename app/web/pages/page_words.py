"""Figures as words for a reader. Pure; the only place of the pages where anything is rounded.

A mark says how a figure is known: `~` is an estimate, `?` is not known, which is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from app.dapr.history.times import Part, Span
from app.domain.models import UsageBasis
from app.domain.money import shown
from app.finance.rollup import rollup
from app.pricing.charge_types import Charge, CostBasis

ESTIMATE, UNKNOWN = "~", "?"
NOTHING = "\N{EN DASH}"
_MILLISECOND = timedelta(milliseconds=1)
_SECOND, _MINUTE, _HOUR, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_PARTS = {
    Part.ACTIVE: "working",
    Part.RESTART: "waiting for the restart",
    Part.SUSPENDED: "paused by a person",
    Part.CHILDREN: "other workflows",
    Part.WAITING: "waiting for a person",
    Part.BACK_OFF: "back-off before a retry",
    Part.TIMER: "timers of its own",
    Part.IDLE: "between steps",
}
_WAITS = {"decision": "waiting for a person's decision", "resume": "parked until resumed"}


def part(which: Part) -> str:
    """What a task was doing."""
    return _PARTS[which]


def pause(span: Span) -> str:
    """What a task was paused for."""
    if span.part is Part.WAITING and span.label:
        return _WAITS.get(span.label, f"waiting for {span.label}")
    return _PARTS[span.part]


def length(of: timedelta) -> str:
    """A duration in two units at most: `312 ms`, `5.00 s`, `2 min 13 s`, `3 d 4 h`."""
    if timedelta(0) < of < _MILLISECOND:
        return "<1 ms"
    if of < _SECOND:
        return f"{of // _MILLISECOND} ms"
    if of < _MINUTE:
        return f"{of / _SECOND:.2f} s" if of < 10 * _SECOND else f"{of / _SECOND:.1f} s"
    if of < _HOUR:
        return f"{of // _MINUTE} min {of % _MINUTE // _SECOND} s"
    if of < _DAY:
        return f"{of // _HOUR} h {of % _HOUR // _MINUTE} min"
    return f"{of // _DAY:,} d {of % _DAY // _HOUR} h"


def clock_time(at: datetime) -> str:
    """An instant of the day, to the millisecond, in UTC."""
    return at.astimezone(UTC).strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def instant(at: datetime) -> str:
    """A day and a time, to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def iso(at: datetime) -> str:
    """An instant for a machine."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def size(count: int) -> str:
    """Bytes."""
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:,.1f} kB"


def tokens(count: int | None, known: UsageBasis) -> str:
    """A number of tokens with its mark."""
    if count is None or known is UsageBasis.UNREPORTED:
        return UNKNOWN
    return f"{'' if _is_sure(count, known) else ESTIMATE}{count:,}"


def _is_sure(count: int, known: UsageBasis) -> bool:
    """Nothing is estimated where no model worked."""
    return known is UsageBasis.REPORTED or count == 0


def tokens_sum(parts: Iterable[tuple[int | None, UsageBasis]]) -> str:
    """The sum of what is known, with the marks of its parts: `~2,400 + ?`."""
    counted = [(None if known is UsageBasis.UNREPORTED else count, known) for count, known in parts]
    found = [(count, known) for count, known in counted if count is not None]
    missing = len(counted) - len(found)
    if counted and not found:
        return UNKNOWN
    worst = UsageBasis.REPORTED if all(_is_sure(count, known) for count, known in found) else UsageBasis.ESTIMATED
    return tokens(sum(count for count, _ in found), worst) + (f" + {UNKNOWN}" if missing else "")


def money(amount: Decimal, currency: str) -> str:
    """An amount with its currency, to six places."""
    return f"{Decimal(shown(amount)):,} {currency}"


@dataclass(frozen=True)
class MoneyCell:
    """Money of some charges, for one cell: a line a currency, with marks; `exact` holds every digit, for a hint."""

    lines: tuple[str, ...]
    exact: str


def money_cell(charges: Iterable[Charge]) -> MoneyCell:
    """What the charges come to. Without any there is nothing to say; with none that is known there is a `?`."""
    group = rollup(charges).total
    missing = group.unpriced + group.unreported > 0
    lines, exact = [], []
    for each in group.money:
        guessed = each.by_known.get(CostBasis.ESTIMATED)
        lines.append((ESTIMATE if guessed else "") + money(each.amount, each.currency))
        exact.append(f"{each.amount:f} {each.currency}")
    if missing:
        lines = [*lines[:-1], f"{lines[-1]} + {UNKNOWN}"] if lines else [UNKNOWN]
        exact.append(f"{group.unpriced} lines without a price, {group.unreported} without a quantity")
    return MoneyCell(tuple(lines), "; ".join(exact))
