"""`refund-agent cost ...`: what the work cost, by whom and by what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import StrEnum
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import failure_cost, opening, reconcile
from app.cli.client import AsJson
from app.cli.opening import Since, Tenant, Until, known_tenants, open_book, selection, tenants, when
from app.cli.screen import (
    AsCsv,
    Column,
    ColumnKind,
    CsvCell,
    Exact,
    Wide,
    figures,
    one_form,
    rounding,
    say,
    show_csv,
    show_json,
    show_table,
)
from app.domain.formatting import UNKNOWN, Digits, digest, digits_for
from app.domain.money import ZERO, difference, share, total
from app.finance.cost_texts import INPUT, KINDS, WORKFLOW, amount, amounts, how_known, of_kind, remarks, tokens
from app.finance.rollup import Dimension
from app.pricing.charge_types import TOKEN_METERS, CostBasis, Meter

if TYPE_CHECKING:
    from app.finance.price_schemas import ChangeView, RepricingView
    from app.finance.report_schemas import (
        CountedReportView,
        CountedView,
        GroupView,
        MoneyView,
        ReportView,
        Selection,
        SidecarRetriesView,
        WorkView,
    )
    from app.ledger.reading.queries import LedgerQueries


# The table of `cost report`: sums by any dimensions, the most expensive first where that is asked for, and why they
# are.

NONE = "-"
LOOKED_INTO = 500  # tasks of which a table says what was done for them
BASIS = Column("known", ColumnKind.PROSE, common=True)
CURRENCY = Column("currency", common=True)
# What was spent in vain is never left out, since that is what one looks for.
_SPARE = {"model": 1, "compute": 3, "orchestration": 4}
_COSTS: tuple[Column | str, ...] = (
    *figures("tokens in"),
    Column("cached", ColumnKind.FIGURE, spare=2),
    *figures("tokens out"),
    *(Column(kind, ColumnKind.FIGURE, spare=_SPARE.get(kind, 0)) for kind in KINDS),
    *figures("total"),
    CURRENCY,
    BASIS,
)
_COUNTS: tuple[Column | str, ...] = (*figures("tasks", "per task"), Column("why", ColumnKind.PROSE))


class Sort(StrEnum):
    """What comes first."""

    NAME = "name"
    TOTAL = "total"
    TOKENS = "tokens"


def counted(chosen: Selection, by: Sequence[Dimension], sort: Sort, top: int | None) -> CountedReportView:
    """The report with its tasks counted, in that order; `top` keeps the first groups (by total: in each currency)."""
    from app.finance.report_schemas import CountedReportView, CountedView, SidecarRetriesView, report_view

    records = opening.open_records()
    known_tenants(chosen, records)
    whole = report_view(records.report(by, chosen.since, chosen.until, tenants(chosen)), chosen)
    kept = _ordered(whole.groups, sort, top)
    counts, works = _counts(whole, records), _works(kept, records, chosen)
    since, until = (datetime.combine(day, time(), UTC) if day else None for day in (chosen.since, chosen.until))
    repeated = [retries.requests for retries in records.unattributed_retries(since, until)]
    least = sum(count or 0 for count in repeated)
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
        unattributed_sidecar_retries=SidecarRetriesView(requests=None if None in repeated else least, at_least=least),
    )


def _ordered(groups: Sequence[GroupView], sort: Sort, top: int | None) -> list[GroupView]:
    if sort is Sort.TOTAL:
        return _most_expensive(groups, top)
    ordered = sorted(groups, key=_all_tokens, reverse=True) if sort is Sort.TOKENS else list(groups)
    return ordered[:top]


def _most_expensive(groups: Sequence[GroupView], top: int | None) -> list[GroupView]:
    """Currencies cannot be compared: the most expensive of one come first, then those of the next; each group once.
    What has no known amount comes last."""
    kept: dict[tuple[str, ...], GroupView] = {}
    for currency in sorted({sum_.currency for group in groups for sum_ in group.money}):
        theirs = [
            (sum_.contracted_cost, group) for group in groups for sum_ in group.money if sum_.currency == currency
        ]
        for _, group in sorted(theirs, key=lambda pair: pair[0], reverse=True)[:top]:
            kept.setdefault(_key(group), group)
    rest = [group for group in groups if not group.money]
    return [*kept.values(), *(rest if top is None else rest[: max(0, top - len(kept))])]


def _key(group: GroupView) -> tuple[str, ...]:
    return tuple(group.key.values())


def _all_tokens(group: GroupView) -> Decimal:
    return total(quantity.consumed_quantity for quantity in group.quantities if quantity.meter in TOKEN_METERS)


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
    per_task = digits_for(
        (share(sum_.contracted_cost, group.tasks), sum_.currency)
        for group in (*view.groups, view.total)
        for sum_ in group.money
        if group.tasks
    )
    keys = [[_value(name, group.key[name]) for name in names] for group in view.groups] if view.by else []
    rows = [row for key, group in zip(keys, view.groups, strict=False) for row in _rows(key, group, digits, per_task)]
    rows += _rows(["total", *[""] * (len(names) - 1)], view.total, digits, per_task)
    counts = any(group.tasks for group in view.groups)
    wanted = [True] * len([*names, *_COSTS]) + [counts, counts, Dimension.TASK in view.by]
    show_table(list(compress([*names, *_COSTS, *_COUNTS], wanted)), [list(compress(row, wanted)) for row in rows])
    if not counts:
        say(", ".join([f"{view.total.tasks or 0:,} tasks", *_per_task(view.total, per_task)]))
    if view.left_out:
        say(f"{len(view.groups):,} of {len(view.groups) + view.left_out:,} groups; the total is of all of them")
    notes = (*rounding(digits), *_repeated(view.unattributed_sidecar_retries))
    for line in (*below(view.total, view), *(f"note: {note}" for note in notes)):
        say(line)


def _repeated(retries: SidecarRetriesView) -> Iterator[str]:
    """What the sidecars did by themselves; nothing where they are known to have repeated no request."""
    if retries.requests is None:
        least = f"at least {retries.at_least:,}" if retries.at_least else "an unknown number of"
        yield f"sidecars repeated {least} requests to models by themselves (a counter was lost); they are in no sum"
    elif retries.requests:
        yield f"sidecars repeated {retries.requests:,} requests to models by themselves; they are in no sum"


def _value(dimension: str, value: str) -> str:
    if dimension in (Dimension.STAGE, Dimension.STEP):
        return value or WORKFLOW
    return digest(value) if dimension == Dimension.PRICE_BOOK else value or NONE


def _rows(key: list[str], group: CountedView, digits: Digits, per_task: Digits) -> Iterator[tuple[str, ...]]:
    """A row for each currency, which are never added; tokens and tasks stand in the first."""
    spent = (tokens(group, *INPUT), tokens(group, Meter.CACHED_INPUT), tokens(group, Meter.OUTPUT))
    count, why = f"{group.tasks:,}" if group.tasks else "", _why(group.work)
    for sum_ in group.money or (None,):
        kinds = (of_kind(sum_, kind, digits) for kind in KINDS)
        one = _of_one_task(sum_, group, per_task) if sum_ else ""
        basis = how_known(group, (sum_,) if sum_ else ())
        currency = sum_.currency if sum_ else ""
        yield (*key, *spent, *kinds, amount(sum_, group, digits), currency, basis, count, one, why)
        spent, count, why = ("", "", ""), "", ""


def _of_one_task(sum_: MoneyView, group: CountedView, per_task: Digits) -> str:
    """What one task costs."""
    return per_task.show(share(sum_.contracted_cost, group.tasks), sum_.currency) if group.tasks else ""


def _per_task(group: CountedView, per_task: Digits) -> Iterator[str]:
    yield from (f"{_of_one_task(sum_, group, per_task)} {sum_.currency} each" for sum_ in group.money if group.tasks)


def _why(work: WorkView | None) -> str:
    """What was done for a task, as far as it makes it dearer than others."""
    if work is None:
        return ""
    notes = [f"{work.calls:,} call{'s' * (work.calls != 1)}"]
    notes += [f"{work.wasted_calls:,} wasted"] * bool(work.wasted_calls)
    notes += [f"{work.step_retries:,} step{'s' * (work.step_retries != 1)} again"] * bool(work.step_retries)
    return ", ".join(notes)


def below(whole: GroupView, chosen: Selection) -> Iterator[str]:
    """What a reader must know of a sum."""
    if not whole.charges:
        yield f"nothing was charged{when(chosen.since, chosen.until) or ' yet'}"
    yield from (f"note: {line}" for line in remarks(whole))


def write_csv(view: CountedReportView) -> None:
    """The report for spreadsheets: a row for each group and currency; tokens and tasks in a group's first row alone."""
    lines = [line.value for line in TOKEN_METERS]
    money = ("currency", "contracted_cost", "list_cost", *KINDS)
    counts = ("tasks", "calls", "wasted_calls", "step_retries", "unreported", "unpriced")
    show_csv([*(dimension.value for dimension in view.by), *money, *lines, *counts], _csv_rows(view))


def _csv_rows(view: CountedReportView) -> Iterator[list[CsvCell]]:
    for group in view.groups if view.by else (view.total,):
        quantities = {quantity.meter: quantity.consumed_quantity for quantity in group.quantities}
        spent: list[CsvCell] = [quantities.get(line) for line in TOKEN_METERS]
        work = group.work.model_dump().values() if group.work else (None,) * 3
        spent += [group.tasks, *work, group.unreported, group.unpriced]
        for sum_ in group.money or (None,):
            costs: list[CsvCell] = [None] * (3 + len(KINDS))
            if sum_:
                costs = [
                    sum_.currency,
                    sum_.contracted_cost,
                    sum_.list_cost,
                    *(sum_.by_kind.get(kind) for kind in KINDS),
                ]
            yield [*_key(group), *costs, *spent]
            spent = [None] * len(spent)


# The table of `cost report --prices`: what the same usage costs by another price book, by any dimensions.

BY = (Dimension.KIND, Dimension.PROVIDER, Dimension.MODEL)


def repriced(chosen: Selection, by: Sequence[Dimension], prices: Path) -> RepricingView:
    """The charges by the book of that file, beside what was billed."""
    from app.finance.price_schemas import repricing_view
    from app.finance.repricing import reprice

    book = open_book(prices)
    records = opening.open_records()
    known_tenants(chosen, records)
    charges = tuple(records.charges(chosen.since, chosen.until, tenants(chosen)))
    return repricing_view(reprice(charges, book, by), {charge.book_digest for charge in charges}, chosen)


def show_repriced(view: RepricingView, by: Sequence[Dimension], prices: Path, *, exact: bool) -> None:
    """The change for people."""
    digits = digits_for(_amounts(view), exact=exact)
    names = [Column(dimension, spare=int(dimension is Dimension.PROVIDER)) for dimension in by] or [Column("")]
    columns = [*names, *figures("billed", "repriced", "change"), CURRENCY, BASIS]
    rows = [_row(change, by, digits) for change in view.changes] if by else []
    show_table(columns, [*rows, *_sums(view, len(names), digits)])
    say(f"billed by book {', '.join(map(digest, view.billed_books)) or NONE}, repriced by book {digest(view.book)}")
    for line in (*below(view.billed, view), *(f"note: {note}" for note in rounding(digits))):
        say(line)
    if view.repriced.unpriced:
        lacking = f"{prices} has no price for {view.repriced.unpriced:,} charges, which are in no repriced sum"
        say(f"note: {lacking}; `refund-agent price check --prices {prices}` says what to add")


def write_repriced_csv(view: RepricingView, by: Sequence[Dimension]) -> None:
    """The change for spreadsheets."""
    figures_ = ("currency", "billed", "repriced", "change", "billed_known", "repriced_known")
    show_csv([*by, *figures_], _repriced_csv_rows(view, by))


def _repriced_csv_rows(view: RepricingView, by: Sequence[Dimension]) -> Iterator[list[CsvCell]]:
    for change in view.changes:
        bases = (change.billed_known.value, change.repriced_known.value)
        yield [
            *(change.key[name] for name in by),
            change.currency,
            change.billed,
            change.repriced,
            change.change,
            *bases,
        ]


def _amounts(view: RepricingView) -> Iterator[tuple[Decimal, str]]:
    for change in view.changes:
        yield from ((amount, change.currency) for amount in (change.billed, change.repriced, change.change))
    yield from amounts(view.billed, view.repriced)


def _row(change: ChangeView, by: Sequence[Dimension], digits: Digits) -> tuple[str, ...]:
    bases = (change.billed_known, change.repriced_known)
    sums = (change.billed, change.repriced, change.change)
    key = (change.key[dimension] or NONE for dimension in by)
    return (*key, *_figures(sums, change.currency, bases, digits), change.currency, _both(*bases))


def _both(billed: CostBasis, repriced: CostBasis) -> str:
    return billed if billed is repriced else f"{billed}, then {repriced}"


def _figures(
    sums: tuple[Decimal, Decimal, Decimal], currency: str, bases: tuple[CostBasis, CostBasis], digits: Digits
) -> Iterator[str]:
    """Billed, repriced, change. A sum that misses something says so; without one of them there is no change to see."""
    lacking = [basis in (CostBasis.UNREPORTED, CostBasis.UNPRICED) for basis in bases]
    nothing = [lacks and not sum_ for sum_, lacks in zip(sums, lacking, strict=False)]
    for sum_, none, lacks in zip(sums, [*nothing, any(nothing)], [*lacking, any(lacking)], strict=True):
        yield UNKNOWN if none else digits.show(sum_, currency) + f" + {UNKNOWN}" * lacks


def _sums(view: RepricingView, names: int, digits: Digits) -> Iterator[tuple[str, ...]]:
    before = {part.currency: part for part in view.billed.money}
    after = {part.currency: part for part in view.repriced.money}
    for currency in sorted(before | after):
        was = before[currency].contracted_cost if currency in before else ZERO
        is_ = after[currency].contracted_cost if currency in after else ZERO
        bases = (view.billed.cost_basis, view.repriced.cost_basis)
        sums = _figures((was, is_, difference(is_, was)), currency, bases, digits)
        yield ("total", *[""] * (names - 1), *sums, currency, _both(*bases))


DEFAULT_BY = "tenant,stage"
By = Annotated[
    str | None,
    typer.Option(
        metavar="DIMENSION,...",
        help=f"Any of: {', '.join(Dimension)}; empty for the total alone.  [default: {DEFAULT_BY}; with --prices: "
        f"{','.join(BY)}]",
        show_default=False,
    ),
]
OtherPrices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Also what it would cost by this price file.", show_default=False),
]

commands = typer.Typer(help="What the work cost, and why.", no_args_is_help=True)


@commands.command("report")
def report_(
    by: By = None,
    since: Since = None,
    until: Until = None,
    tenant: Tenant = None,
    sort: Annotated[
        Sort | None, typer.Option(help="What comes first.  [default: name; with --top: total]", show_default=False)
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N groups.", show_default=False)
    ] = None,
    prices: OtherPrices = None,
    exact: Exact = False,
    wide: Wide = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Sums what was charged, by any dimensions; with --prices, what the same usage costs by another book. The five
    most expensive tickets, and why: --by task --top 5."""
    one_form(as_csv=as_csv, as_json=as_json)
    chosen = selection(since, until, tenant)
    if prices:
        if sort or top:
            raise typer.BadParameter("--sort and --top do not go with --prices")
        names = BY if by is None else dimensions(by)
        changed = repriced(chosen, names, prices)
        if as_json:
            show_json(changed)
        else:
            write_repriced_csv(changed, names) if as_csv else show_repriced(changed, names, prices, exact=exact)
        return
    first = sort or (Sort.TOTAL if top else Sort.NAME)
    view = counted(chosen, dimensions(DEFAULT_BY if by is None else by), first, top)
    if as_json:
        show_json(view)
    else:
        write_csv(view) if as_csv else show(view, exact=exact)


def dimensions(text: str) -> tuple[Dimension, ...]:
    """The dimensions of `a,b`, each once. Raises BadParameter that lists those there are."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in frozenset(Dimension):
            raise typer.BadParameter(f"--by: there is no dimension {name!r}; there are {', '.join(Dimension)}")
    return tuple(Dimension(name) for name in names)


commands.command("reconcile")(reconcile.reconcile)
commands.command("failures")(failure_cost.failures)
