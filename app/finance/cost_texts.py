"""The tokens and the money of a group of charges as text, and how well they are known, for command line and pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from app.domain.formatting import ESTIMATED, UNKNOWN, Digits, percent, tokens_sum
from app.domain.models import UsageBasis
from app.pricing.charge_types import CostBasis, Meter

if TYPE_CHECKING:
    from app.finance.report_schemas import GroupView, MoneyView
    from app.finance.rollup import Group, MoneySum

    AnyGroup = Group | GroupView
    AnyMoney = MoneySum | MoneyView

INPUT = (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE)
KINDS = ("model", "compute", "orchestration", "wasted")
WORKFLOW = "(workflow)"  # shown as the stage of charges of the workflow itself, which belong to no step


def tokens(group: AnyGroup, *lines: Meter) -> str:
    """The sum of the tokens of these lines: `811 + ?` if some calls did not report theirs; empty without such lines."""
    quantities = [quantity for quantity in group.quantities if quantity.meter in lines]
    parts = [(part, basis) for quantity in quantities for basis, part in quantity.by_basis.items()]
    unknown = any(quantity.missing for quantity in quantities) or not parts
    missing = [(None, UsageBasis.UNREPORTED)] if unknown else []
    return tokens_sum([*parts, *missing]) if quantities else ""


def incomplete(group: AnyGroup) -> bool:
    """Whether some charges of the group are in no sum of money."""
    return bool(group.unpriced or group.unreported)


def is_estimated(sum_: AnyMoney) -> bool:
    """Whether a part of the sum is not reported."""
    return any(part for basis, part in sum_.by_basis.items() if basis is not CostBasis.REPORTED)


def money(sum_: AnyMoney, digits: Digits) -> str:
    """A sum with its currency: `0.0043 USD`, or `~0.0043 USD` if a part is estimated."""
    return (
        f"{ESTIMATED if is_estimated(sum_) else ''}{digits.show(sum_.contracted_cost, sum_.currency)} {sum_.currency}"
    )


def money_of(group: AnyGroup, digits: Digits) -> tuple[str, ...]:
    """The cost of the group, one text for each currency; the last ends in `+ ?` if some charges are in no sum. `?` if
    all are in no sum; empty without charges."""
    sums = [money(part, digits) for part in group.money]
    if incomplete(group):
        sums = [*sums[:-1], f"{sums[-1]} + {UNKNOWN}"] if sums else [UNKNOWN]
    return tuple(sums)


def amount(sum_: AnyMoney | None, group: AnyGroup, digits: Digits) -> str:
    """The group's sum in one currency, without the currency's name."""
    sums = [digits.show(sum_.contracted_cost, sum_.currency)] if sum_ else []
    return " + ".join([*sums, *([UNKNOWN] if incomplete(group) else [])])


def of_kind(sum_: AnyMoney | None, kind: str, digits: Digits) -> str:
    """The cost of one kind of work; empty if nothing was charged for it."""
    return digits.show(sum_.by_kind[kind], sum_.currency) if sum_ and kind in sum_.by_kind else ""


def amounts(*groups: AnyGroup) -> Iterator[tuple[Decimal, str]]:
    """Every amount of the groups that a table may show, with its currency: the input of `digits_for`."""
    for group in groups:
        for sum_ in group.money:
            yield from (
                (part, sum_.currency) for part in (sum_.contracted_cost, sum_.list_cost, *sum_.by_kind.values())
            )
            yield from ((part, sum_.currency) for part in sum_.by_basis.values())


def how_known(group: AnyGroup, sums: Iterable[AnyMoney]) -> str:
    """How well the sums of a group are known: `12 % estimated, 3 unpriced`; `reported` if all of it is."""
    notes = list(dict.fromkeys(text for part in sums for text in _shares(part)))
    notes += [f"{group.unreported:,} unreported"] * bool(group.unreported)
    notes += [f"{group.unpriced:,} unpriced"] * bool(group.unpriced)
    return ", ".join(notes) or (CostBasis.REPORTED.value if group.charges else "")


def _shares(sum_: AnyMoney) -> Iterator[str]:
    if part := sum_.by_basis.get(CostBasis.ESTIMATED):
        yield f"{_share(part, sum_.contracted_cost)} {CostBasis.ESTIMATED}".strip()


def _share(part: Decimal, whole: Decimal) -> str:
    """A share in percent; empty for the whole; `partly` if corrections make the part exceed its whole."""
    if part == whole:
        return ""
    return percent(part / whole, 0) if 0 < part < whole else "partly"


def remarks(group: AnyGroup) -> Iterator[str]:
    """Remarks on an incomplete or estimated sum, each with a remedy."""
    if group.unpriced:
        yield f"{group.unpriced:,} charges have no price and are in no sum; `refund-agent price check` says what to add"
    if group.unreported:
        yield (
            f"{group.unreported:,} charges have no quantity, because nobody reported one, and are in no sum; "
            "`refund-agent cost reconcile` compares the record with the provider's bill"
        )
    if any(map(is_estimated, group.money)):
        yield "~ and estimated: counted by us, not reported; `refund-agent cost reconcile` compares it with the bill"
