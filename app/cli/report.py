"""The table of `cost report`: sums by any dimensions, the dearest first where that is asked for, and why they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from itertools import compress
from typing import TYPE_CHECKING

from app.cli import opening
from app.cli.figures import (
    INPUT,
    KINDS,
    WORKFLOW,
    Digits,
    amount,
    amounts,
    digest,
    digits_for,
    how_known,
    of_kind,
    remarks,
    tokens,
)
from app.cli.layout import Column, Kind, figures
from app.cli.period import known_tenants, tenants, when
from app.cli.screen import CsvCell, say, show_csv, show_table
from app.domain.money import share, total
from app.finance.rollup import Dimension
from app.pricing.charge_kinds import TOKEN_LINES, Meter

if TYPE_CHECKING:
    from app.finance.report_schemas import (
        CountedReportView,
        CountedView,
        GroupView,
        MoneyView,
        ReportView,
        Selection,
        WorkView,
    )
    from app.ledger.reading.queries import LedgerQueries

NONE = "-"
LOOKED_INTO = 500  # tasks of which a table says what was done for them
KNOWN = Column("known", Kind.PROSE, common=True)
CURRENCY = Column("currency", common=True)
# What was spent in vain is never left out, since that is what one looks for.
_SPARE = {"model": 1, "compute": 3, "orchestration": 4}
_COSTS: tuple[Column | str, ...] = (
    *figures("tokens in"),
    Column("cached", Kind.FIGURE, spare=2),
    *figures("tokens out"),
    *(Column(kind, Kind.FIGURE, spare=_SPARE.get(kind, 0)) for kind in KINDS),
    *figures("total"),
    CURRENCY,
    KNOWN,
)
_COUNTS: tuple[Column | str, ...] = (*figures("tasks", "per task"), Column("why", Kind.PROSE))


class Sort(StrEnum):
    """What comes first."""

    NAME = "name"
    TOTAL = "total"
    TOKENS = "tokens"


def counted(chosen: Selection, by: Sequence[Dimension], sort: Sort, top: int | None) -> CountedReportView:
    """The report with its tasks counted, in that order; `top` keeps the first groups (by total: in each currency)."""
    from app.finance.report_schemas import CountedReportView, CountedView, report_view

    records = opening.open_records()
    known_tenants(chosen, records)
    whole = report_view(records.report(by, chosen.since, chosen.until, tenants(chosen)), chosen)
    kept = _ordered(whole.groups, sort, top)
    counts, works = _counts(whole, records), _works(kept, records, chosen)
    counted_groups = tuple(
        CountedView(**dict(group), tasks=counts.get(_key(group)), work=works.get(group.key.get(Dimension.TASK, "")))
        for group in kept
    )
    return CountedReportView(
        since=whole.since,
        until=whole.until,
        tenants=whole.tenants,
        by=whole.by,
        groups=counted_groups,
        total=CountedView(**dict(whole.total), tasks=_tasks(records, (), chosen).get((), 0)),
        left_out=len(whole.groups) - len(kept),
    )


def _ordered(groups: Sequence[GroupView], sort: Sort, top: int | None) -> list[GroupView]:
    if sort is Sort.TOTAL:
        return _dearest(groups, top)
    found = sorted(groups, key=_all_tokens, reverse=True) if sort is Sort.TOKENS else list(groups)
    return found[:top]


def _dearest(groups: Sequence[GroupView], top: int | None) -> list[GroupView]:
    """Currencies cannot be compared: the dearest of one come first, then those of the next; each group once. What has
    no known amount comes last."""
    found: dict[tuple[str, ...], GroupView] = {}
    for currency in sorted({sum_.currency for group in groups for sum_ in group.money}):
        theirs = [(sum_.amount, group) for group in groups for sum_ in group.money if sum_.currency == currency]
        for _, group in sorted(theirs, key=lambda each: each[0], reverse=True)[:top]:
            found.setdefault(_key(group), group)
    rest = [group for group in groups if not group.money]
    return [*found.values(), *(rest if top is None else rest[: max(0, top - len(found))])]


def _key(group: GroupView) -> tuple[str, ...]:
    return tuple(group.key.values())


def _all_tokens(group: GroupView) -> Decimal:
    return total(each.quantity for each in group.quantities if each.line in TOKEN_LINES)


def _counts(whole: ReportView, records: LedgerQueries) -> dict[tuple[str, ...], int]:
    """The tasks of each group; none where one task is in several of them, or each group is one task."""
    from app.ledger.reading.counting import COUNTABLE

    countable = whole.by and Dimension.TASK not in whole.by and COUNTABLE.keys() >= set(whole.by)
    return _tasks(records, whole.by, whole) if countable else {}


def _tasks(records: LedgerQueries, by: Sequence[Dimension], chosen: Selection) -> dict[tuple[str, ...], int]:
    return records.tasks_charged(by, chosen.since, chosen.until, tenants(chosen))


def _works(groups: Sequence[GroupView], records: LedgerQueries, chosen: Selection) -> dict[str, WorkView]:
    from app.finance.report_schemas import WorkView

    task_ids = {group.key[Dimension.TASK] for group in groups if Dimension.TASK in group.key}
    if len(task_ids) > LOOKED_INTO:
        return {}
    done = records.work(task_ids, chosen.since, chosen.until) if task_ids else {}
    return {task_id: WorkView.model_validate(work) for task_id, work in done.items()}


def show(view: CountedReportView, *, exact: bool) -> None:
    """The report for people."""
    names = [dimension.value for dimension in view.by] or [""]
    digits = digits_for(amounts(view.total, *view.groups), exact=exact)
    each = digits_for(
        (share(sum_.amount, group.tasks), sum_.currency)
        for group in (*view.groups, view.total)
        for sum_ in group.money
        if group.tasks
    )
    keys = [[_value(name, group.key[name]) for name in names] for group in view.groups] if view.by else []
    rows = [row for key, group in zip(keys, view.groups, strict=False) for row in _rows(key, group, digits, each)]
    rows += _rows(["total", *[""] * (len(names) - 1)], view.total, digits, each)
    counts = any(group.tasks for group in view.groups)
    wanted = [True] * len([*names, *_COSTS]) + [counts, counts, Dimension.TASK in view.by]
    show_table(list(compress([*names, *_COSTS, *_COUNTS], wanted)), [list(compress(row, wanted)) for row in rows])
    if not counts:
        say(", ".join([f"{view.total.tasks or 0:,} tasks", *_each(view.total, each)]))
    if view.left_out:
        say(f"{len(view.groups):,} of {len(view.groups) + view.left_out:,} groups; the total is of all of them")
    for line in (*below(view.total, view), *(f"note: {note}" for note in digits.notes())):
        say(line)


def _value(dimension: str, value: str) -> str:
    if dimension in (Dimension.STAGE, Dimension.STEP):
        return value or WORKFLOW
    return digest(value) if dimension == Dimension.PRICE_BOOK else value or NONE


def _rows(key: list[str], group: CountedView, digits: Digits, each: Digits) -> Iterator[tuple[str, ...]]:
    """A row for each currency, which are never added; tokens and tasks stand in the first."""
    spent = (tokens(group, *INPUT), tokens(group, Meter.CACHED_INPUT), tokens(group, Meter.OUTPUT))
    count, why = f"{group.tasks:,}" if group.tasks else "", _why(group.work)
    for sum_ in group.money or (None,):
        kinds = (of_kind(sum_, kind, digits) for kind in KINDS)
        one = _one(sum_, group, each) if sum_ else ""
        known = how_known(group, (sum_,) if sum_ else ())
        currency = sum_.currency if sum_ else ""
        yield (*key, *spent, *kinds, amount(sum_, group, digits), currency, known, count, one, why)
        spent, count, why = ("", "", ""), "", ""


def _one(sum_: MoneyView, group: CountedView, each: Digits) -> str:
    """What one task costs."""
    return each.show(share(sum_.amount, group.tasks), sum_.currency) if group.tasks else ""


def _each(group: CountedView, each: Digits) -> Iterator[str]:
    yield from (f"{_one(sum_, group, each)} {sum_.currency} each" for sum_ in group.money if group.tasks)


def _why(work: WorkView | None) -> str:
    """What was done for a task, as far as it makes it dearer than others."""
    if work is None:
        return ""
    said = [f"{work.calls:,} call{'s' * (work.calls != 1)}"]
    said += [f"{work.calls_in_vain:,} in vain"] * bool(work.calls_in_vain)
    said += [f"{work.sidecar_retries:,} repeated by the sidecar"] * bool(work.sidecar_retries)
    said += [f"{work.step_retries:,} step{'s' * (work.step_retries != 1)} again"] * bool(work.step_retries)
    return ", ".join(said)


def below(whole: GroupView, chosen: Selection) -> Iterator[str]:
    """What a reader must know of a sum."""
    if not whole.charges:
        yield f"nothing was charged{when(chosen.since, chosen.until) or ' yet'}"
    yield from (f"note: {line}" for line in remarks(whole))


def write_csv(view: CountedReportView) -> None:
    """The report for spreadsheets: a row for each group and currency; tokens and tasks in a group's first row alone."""
    lines = [line.value for line in TOKEN_LINES]
    money = ("currency", "amount", "list_amount", *KINDS)
    counts = ("tasks", "calls", "calls_in_vain", "sidecar_retries", "step_retries", "unreported", "unpriced")
    show_csv([*(dimension.value for dimension in view.by), *money, *lines, *counts], _csv_rows(view))


def _csv_rows(view: CountedReportView) -> Iterator[list[CsvCell]]:
    for group in view.groups if view.by else (view.total,):
        quantities = {each.line: each.quantity for each in group.quantities}
        spent: list[CsvCell] = [quantities.get(line) for line in TOKEN_LINES]
        work = group.work.model_dump().values() if group.work else (None,) * 4
        spent += [group.tasks, *work, group.unreported, group.unpriced]
        for sum_ in group.money or (None,):
            costs: list[CsvCell] = [None] * (3 + len(KINDS))
            if sum_:
                costs = [sum_.currency, sum_.amount, sum_.list_amount, *(sum_.by_kind.get(kind) for kind in KINDS)]
            yield [*_key(group), *costs, *spent]
            spent = [None] * len(spent)
