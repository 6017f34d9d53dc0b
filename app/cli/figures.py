"""Figures for people: money, tokens and times, each with how it is known. `~` is estimated, `?` is not known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from app.domain.models import UsageBasis
from app.domain.money import ZERO, shown, total
from app.pricing.charge_types import CostBasis, Meter

if TYPE_CHECKING:
    from app.finance.report_schemas import GroupView, MoneyView

UNKNOWN = "?"
WORKFLOW = "(workflow)"  # the stage of what the workflow itself costs, which is none of its steps
Exact = Annotated[bool, typer.Option("--exact", help="Every digit of the amounts, instead of rounded ones.")]
INPUT = (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE)
KINDS = ("model", "compute", "orchestration", "rerun")
_ONE, _ALL_BUT_ONE = Decimal("0.01"), Decimal("0.99")
_SHORT_DIGEST = 12
_CENTS, _MORE, _FULL = 2, 4, 6


@dataclass(frozen=True)
class Digits:
    """To how many places the amounts of one table are shown, by currency. Sums are of the exact amounts, so where any
    amount is `rounded` they may differ in the last place from what is shown."""

    places: Mapping[str, int]
    rounded: bool

    def show(self, amount: Decimal, currency: str) -> str:
        """An amount: `1,234.57`; never nothing for something: `<0.01`."""
        places = self.places[currency]
        rounded = Decimal(shown(amount, places))
        if amount and not rounded:
            unit = Decimal(1).scaleb(-places)
            return f"<{unit:f}" if amount > 0 else f">-{unit:f}"
        return f"{rounded if rounded else abs(rounded):,f}"

    def notes(self) -> Iterator[str]:
        """What a reader must know of the figures; nothing when they are exact."""
        if self.rounded:
            units = " and ".join(dict.fromkeys(f"{Decimal(1).scaleb(-places):f}" for places in self.places.values()))
            yield f"amounts are rounded to {units}, sums are of the exact ones; --exact shows every digit"


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
    places = {currency: min(_telling(amount), needed[currency]) for currency, amount in largest.items()}
    return Digits(places, rounded=any(places[currency] < needed[currency] for currency in places))


def _telling(largest: Decimal) -> int:
    """Places at which the largest amount of a table has two figures or more."""
    return _CENTS if largest >= 1 else _MORE if largest >= _ONE else _FULL


def count(value: int | None, known: UsageBasis) -> str:
    """One count: `811`, `~811` when it is not as reported, `?` when nobody knows. A call is taken to have used nothing
    only where nobody can have worked at it, so zero is sure."""
    return UNKNOWN if value is None else f"{'~' if value and known is not UsageBasis.REPORTED else ''}{value:,}"


def tokens(group: GroupView, *lines: Meter) -> str:
    """The tokens of these lines together; `811 + ?` when some calls did not report theirs."""
    found = [each for each in group.quantities if each.line in lines]
    parts = [part for each in found for part in each.by_known.items()]
    if not parts:
        return UNKNOWN if found else ""
    rough = any(known is not UsageBasis.REPORTED and value for known, value in parts)
    text = f"{'~' if rough else ''}{int(total(value for _, value in parts)):,}"
    return f"{text} + {UNKNOWN}" if any(each.missing for each in found) else text


def incomplete(group: GroupView) -> bool:
    """Whether some of its charges are in no sum of money."""
    return bool(group.unpriced or group.unreported)


def money(group: GroupView, digits: Digits) -> str:
    """All that the group costs: `0.0043 USD`, `~` when a part of it is estimated; currencies stand side by side."""
    sums = [
        f"{'~' if _rough(each) else ''}{digits.show(each.amount, each.currency)} {each.currency}"
        for each in group.money
    ]
    return " + ".join([", ".join(sums)] * bool(sums) + [UNKNOWN] * incomplete(group))


def _rough(sum_: MoneyView) -> bool:
    return any(part for known, part in sum_.by_known.items() if known is not CostBasis.REPORTED)


def amount(sum_: MoneyView | None, group: GroupView, digits: Digits) -> str:
    """The group's sum in one currency, without its name."""
    sums = [digits.show(sum_.amount, sum_.currency)] if sum_ else []
    return " + ".join([*sums, *([UNKNOWN] if incomplete(group) else [])])


def of_kind(sum_: MoneyView | None, kind: str, digits: Digits) -> str:
    """What one kind of work costs; empty when nothing was charged for it."""
    return digits.show(sum_.by_kind[kind], sum_.currency) if sum_ and kind in sum_.by_kind else ""


def amounts(*groups: GroupView) -> Iterator[tuple[Decimal, str]]:
    """Every amount of the groups that a table may show, with its currency."""
    for sum_ in (each for group in groups for each in group.money):
        yield from ((part, sum_.currency) for part in (sum_.amount, sum_.list_amount, *sum_.by_kind.values()))
        yield from ((part, sum_.currency) for part in sum_.by_known.values())


def how_known(group: GroupView, sums: Iterable[MoneyView]) -> str:
    """How well the sums of a group are known: `12 % estimated, 3 unpriced`; `reported` when nothing is to be said."""
    said = list(dict.fromkeys(text for each in sums for text in _shares(each)))
    said += [f"{group.unreported:,} unreported"] * bool(group.unreported)
    said += [f"{group.unpriced:,} unpriced"] * bool(group.unpriced)
    return ", ".join(said) or (CostBasis.REPORTED.value if group.charges else "")


def _shares(sum_: MoneyView) -> Iterator[str]:
    if part := sum_.by_known.get(CostBasis.ESTIMATED):
        yield f"{_share(part, sum_.amount)} {CostBasis.ESTIMATED}".strip()


def _share(part: Decimal, whole: Decimal) -> str:
    """A share in per cent. Corrections can make a part exceed its whole: then no share is said."""
    if part == whole:
        return ""
    if not 0 < part < whole:
        return "partly"
    share = part / whole
    if share < _ONE:
        return "<1 %"
    return ">99 %" if share > _ALL_BUT_ONE else f"{share * 100:.0f} %"


def remarks(group: GroupView) -> Iterator[str]:
    """What a reader must know about a sum that is not whole, or not exact, each with what can be done."""
    if group.unpriced:
        yield f"{group.unpriced:,} charges have no price and are in no sum; `refund-agent price check` says what to add"
    if group.unreported:
        yield (
            f"{group.unreported:,} charges have no quantity, since nobody reported one, and are in no sum; "
            "`refund-agent cost reconcile` holds the record against the provider's bill"
        )
    if any(_rough(sum_) for sum_ in group.money):
        yield "~ and estimated: counted by us, not reported; `refund-agent cost reconcile` holds it against the bill"


def duration(length: timedelta) -> str:
    """A time for a reader: `0.812 s`, `1:02:03`."""
    seconds = length.total_seconds()
    if seconds < 60:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def moment(at: datetime | None) -> str:
    """An instant, in UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def digest(value: str) -> str:
    """The beginning of a digest, enough to tell books apart."""
    return value[:_SHORT_DIGEST]
