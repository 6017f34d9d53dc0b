"""`refund-agent cost ...`: what the work cost, by any dimensions."""

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
from app.cli.opening import Since, Tenant, Until, open_book, period_text, require_known_tenants, selection, tenants
from app.cli.screen import (
    AsCsv,
    Column,
    ColumnKind,
    CsvCell,
    Exact,
    Wide,
    figures,
    require_one_format,
    rounding_notes,
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


# The table of `cost report`: sums by any dimensions; for single tasks also the calls and retries behind their cost.

NONE = "-"
MAX_EXPLAINED_TASKS = 500  # with more tasks in a table, their calls and retries are not read
BASIS = Column("known", ColumnKind.PROSE, common=True)
CURRENCY = Column("currency", common=True)
# The column `wasted` is never left out, since it is what readers look for.
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
    """The order of a report's groups: by name, or largest first."""

    NAME = "name"
    TOTAL = "total"
    TOKENS = "tokens"


def counted_report(chosen: Selection, by: Sequence[Dimension], sort: Sort, top: int | None) -> CountedReportView:
    """The report with task counts, in the order `sort`; `top` keeps the first groups (by total: of each currency)."""
    from app.finance.report_schemas import CountedReportView, CountedView, SidecarRetriesView, report_view

    records = opening.open_records()
    require_known_tenants(chosen, records)
    whole = report_view(records.report(by, chosen.since, chosen.until, tenants(chosen)), chosen)
    kept = _order_groups(whole.groups, sort, top)
    counts, work = _tasks_by_group(whole, records), _work_by_task(kept, records, chosen)
    since, until = (datetime.combine(day, time(), UTC) if day else None for day in (chosen.since, chosen.until))
    repeated = [retries.requests for retries in records.unattributed_retries(since, until)]
    least = sum(count or 0 for count in repeated)
    counted_groups = tuple(
        CountedView(**dict(group), tasks=counts.get(_key(group)), work=work.get(group.key.get(Dimension.TASK, "")))
        for group in kept
    )
    return CountedReportView(
        since=whole.since,
        until=whole.until,
        tenants=whole.tenants,
        by=whole.by,
        groups=counted_groups,
        total=CountedView(**dict(whole.total), tasks=_count_tasks(records, (), chosen).get((), 0)),
        left_out=len(whole.groups) - len(kept),
        unattributed_sidecar_retries=SidecarRetriesView(requests=None if None in repeated else least, at_least=least),
    )


def _order_groups(groups: Sequence[GroupView], sort: Sort, top: int | None) -> list[GroupView]:
    if sort is Sort.TOTAL:
        return _most_expensive(groups, top)
    ordered = sorted(groups, key=_all_tokens, reverse=True) if sort is Sort.TOKENS else list(groups)
    return ordered[:top]


def _most_expensive(groups: Sequence[GroupView], top: int | None) -> list[GroupView]:
    """The groups by falling cost: one currency after the other, since they cannot be compared, and each group once.
    Groups without a known amount come last."""
    kept: dict[tuple[str, ...], GroupView] = {}
    for currency in sorted({sum_.currency for group in groups for sum_ in group.money}):
        costs = [(sum_.contracted_cost, group) for group in groups for sum_ in group.money if sum_.currency == currency]
        for _, group in sorted(costs, key=lambda pair: pair[0], reverse=True)[:top]:
            kept.setdefault(_key(group), group)
    rest = [group for group in groups if not group.money]
    return [*kept.values(), *(rest if top is None else rest[: max(0, top - len(kept))])]


def _key(group: GroupView) -> tuple[str, ...]:
    return tuple(group.key.values())


def _all_tokens(group: GroupView) -> Decimal:
    return total(quantity.consumed_quantity for quantity in group.quantities if quantity.meter in TOKEN_METERS)


def _tasks_by_group(whole: ReportView, records: LedgerQueries) -> dict[tuple[str, ...], int]:
    """The number of tasks in each group; empty if a task can be in several groups, or if each group is one task."""
    from app.ledger.reading.counting import COUNTABLE

    countable = whole.by and Dimension.TASK not in whole.by and COUNTABLE.keys() >= set(whole.by)
    return _count_tasks(records, whole.by, whole) if countable else {}


def _count_tasks(records: LedgerQueries, by: Sequence[Dimension], chosen: Selection) -> dict[tuple[str, ...], int]:
    return records.tasks_charged(by, chosen.since, chosen.until, tenants(chosen))


def _work_by_task(groups: Sequence[GroupView], records: LedgerQueries, chosen: Selection) -> dict[str, WorkView]:
    """The calls and retries of each task that is a group; empty above `MAX_EXPLAINED_TASKS`."""
    from app.finance.report_schemas import WorkView

    task_ids = {group.key[Dimension.TASK] for group in groups if Dimension.TASK in group.key}
    if not task_ids or len(task_ids) > MAX_EXPLAINED_TASKS:
        return {}
    work_by_task = records.work(task_ids, chosen.since, chosen.until)
    return {task_id: WorkView.model_validate(work) for task_id, work in work_by_task.items()}


def show(view: CountedReportView, *, exact: bool) -> None:
    """Prints the report as a table."""
    names = [dimension.value for dimension in view.by] or [""]
    digits = digits_for(amounts(view.total, *view.groups), exact=exact)
    per_task = digits_for(
        (share(sum_.contracted_cost, group.tasks), sum_.currency)
        for group in (*view.groups, view.total)
        for sum_ in group.money
        if group.tasks
    )
    keys = [[_key_text(name, group.key[name]) for name in names] for group in view.groups] if view.by else []
    rows = [row for key, group in zip(keys, view.groups, strict=False) for row in _rows(key, group, digits, per_task)]
    rows += _rows(["total", *[""] * (len(names) - 1)], view.total, digits, per_task)
    counts = any(group.tasks for group in view.groups)
    wanted = [True] * len([*names, *_COSTS]) + [counts, counts, Dimension.TASK in view.by]
    show_table(list(compress([*names, *_COSTS, *_COUNTS], wanted)), [list(compress(row, wanted)) for row in rows])
    if not counts:
        per_currency = (
            f"{_cost_per_task(sum_, view.total, per_task)} {sum_.currency} each"
            for sum_ in view.total.money
            if view.total.tasks
        )
        say(", ".join([f"{view.total.tasks or 0:,} tasks", *per_currency]))
    if view.left_out:
        say(f"{len(view.groups):,} of {len(view.groups) + view.left_out:,} groups; the total is of all of them")
    notes = (*rounding_notes(digits), *_sidecar_retry_notes(view.unattributed_sidecar_retries))
    for line in (*total_notes(view.total, view), *(f"note: {note}" for note in notes)):
        say(line)


def _sidecar_retry_notes(retries: SidecarRetriesView) -> Iterator[str]:
    """The requests that sidecars repeated; nothing if there are certainly none."""
    if retries.requests is None:
        least = f"at least {retries.at_least:,}" if retries.at_least else "an unknown number of"
        yield f"sidecars repeated {least} requests to models (a counter was lost); the sums do not include them"
    elif retries.requests:
        yield f"sidecars repeated {retries.requests:,} requests to models; the sums do not include them"


def _key_text(dimension: str, value: str) -> str:
    if dimension in (Dimension.STAGE, Dimension.STEP):
        return value or WORKFLOW
    return digest(value) if dimension == Dimension.PRICE_BOOK else value or NONE


def _rows(key: list[str], group: CountedView, digits: Digits, per_task: Digits) -> Iterator[tuple[str, ...]]:
    """One row for each currency, since currencies are never added. Tokens and tasks are in the first row only."""
    usage = (tokens(group, *INPUT), tokens(group, Meter.CACHED_INPUT), tokens(group, Meter.OUTPUT))
    count, why = f"{group.tasks:,}" if group.tasks else "", _why(group.work)
    for sum_ in group.money or (None,):
        kinds = (of_kind(sum_, kind, digits) for kind in KINDS)
        mean = _cost_per_task(sum_, group, per_task) if sum_ else ""
        basis = how_known(group, (sum_,) if sum_ else ())
        currency = sum_.currency if sum_ else ""
        yield (*key, *usage, *kinds, amount(sum_, group, digits), currency, basis, count, mean, why)
        usage, count, why = ("", "", ""), "", ""


def _cost_per_task(sum_: MoneyView, group: CountedView, per_task: Digits) -> str:
    return per_task.show(share(sum_.contracted_cost, group.tasks), sum_.currency) if group.tasks else ""


def _why(work: WorkView | None) -> str:
    """The work that explains a task's cost: its calls, the wasted ones, and repeated steps."""
    if work is None:
        return ""
    notes = [f"{work.calls:,} call{'s' * (work.calls != 1)}"]
    notes += [f"{work.wasted_calls:,} wasted"] * bool(work.wasted_calls)
    notes += [f"{work.step_retries:,} step{'s' * (work.step_retries != 1)} again"] * bool(work.step_retries)
    return ", ".join(notes)


def total_notes(whole: GroupView, chosen: Selection) -> Iterator[str]:
    """What a reader must know about a total: that nothing was charged, or what is missing from it."""
    if not whole.charges:
        yield f"nothing was charged{period_text(chosen.since, chosen.until) or ' yet'}"
    yield from (f"note: {line}" for line in remarks(whole))


def write_csv(view: CountedReportView) -> None:
    """Prints the report as CSV: one row for each group and currency; tokens and tasks only in a group's first row."""
    lines = [line.value for line in TOKEN_METERS]
    money = ("currency", "contracted_cost", "list_cost", *KINDS)
    counts = ("tasks", "calls", "wasted_calls", "step_retries", "unreported", "unpriced")
    show_csv([*(dimension.value for dimension in view.by), *money, *lines, *counts], _csv_rows(view))


def _csv_rows(view: CountedReportView) -> Iterator[list[CsvCell]]:
    for group in view.groups if view.by else (view.total,):
        quantities = {quantity.meter: quantity.consumed_quantity for quantity in group.quantities}
        counts: list[CsvCell] = [quantities.get(line) for line in TOKEN_METERS]
        work = group.work.model_dump().values() if group.work else (None,) * 3
        counts += [group.tasks, *work, group.unreported, group.unpriced]
        for sum_ in group.money or (None,):
            costs: list[CsvCell] = [None] * (3 + len(KINDS))
            if sum_:
                costs = [
                    sum_.currency,
                    sum_.contracted_cost,
                    sum_.list_cost,
                    *(sum_.by_kind.get(kind) for kind in KINDS),
                ]
            yield [*_key(group), *costs, *counts]
            counts = [None] * len(counts)


# The table of `cost report --prices`: the cost of the same usage by another price book.

BY = (Dimension.KIND, Dimension.PROVIDER, Dimension.MODEL)


def repricing(chosen: Selection, by: Sequence[Dimension], prices: Path) -> RepricingView:
    """The charges repriced by the price file `prices`, next to the billed cost."""
    from app.finance.price_schemas import repricing_view
    from app.finance.repricing import reprice

    book = open_book(prices)
    records = opening.open_records()
    require_known_tenants(chosen, records)
    charges = tuple(records.charges(chosen.since, chosen.until, tenants(chosen)))
    return repricing_view(reprice(charges, book, by), {charge.book_digest for charge in charges}, chosen)


def show_repricing(view: RepricingView, by: Sequence[Dimension], prices: Path, *, exact: bool) -> None:
    """Prints the repricing as a table."""
    digits = digits_for(_amounts(view), exact=exact)
    names = [Column(dimension, spare=int(dimension is Dimension.PROVIDER)) for dimension in by] or [Column("")]
    columns = [*names, *figures("billed", "repriced", "change"), CURRENCY, BASIS]
    rows = [_change_row(change, by, digits) for change in view.changes] if by else []
    show_table(columns, [*rows, *_total_rows(view, len(names), digits)])
    say(f"billed by book {', '.join(map(digest, view.billed_books)) or NONE}, repriced by book {digest(view.book)}")
    for line in (*total_notes(view.billed, view), *(f"note: {note}" for note in rounding_notes(digits))):
        say(line)
    if view.repriced.unpriced:
        gap = f"{prices} has no price for {view.repriced.unpriced:,} charges, which are in no repriced sum"
        say(f"note: {gap}; `refund-agent price check --prices {prices}` says what to add")


def write_repricing_csv(view: RepricingView, by: Sequence[Dimension]) -> None:
    """Prints the repricing as CSV."""
    figures_ = ("currency", "billed", "repriced", "change", "billed_known", "repriced_known")
    show_csv([*by, *figures_], _repricing_csv_rows(view, by))


def _repricing_csv_rows(view: RepricingView, by: Sequence[Dimension]) -> Iterator[list[CsvCell]]:
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


def _change_row(change: ChangeView, by: Sequence[Dimension], digits: Digits) -> tuple[str, ...]:
    bases = (change.billed_known, change.repriced_known)
    sums = (change.billed, change.repriced, change.change)
    key = (change.key[dimension] or NONE for dimension in by)
    return (*key, *_figures(sums, change.currency, bases, digits), change.currency, _bases(*bases))


def _bases(billed: CostBasis, repriced: CostBasis) -> str:
    return billed if billed is repriced else f"{billed}, then {repriced}"


def _figures(
    sums: tuple[Decimal, Decimal, Decimal], currency: str, bases: tuple[CostBasis, CostBasis], digits: Digits
) -> Iterator[str]:
    """Billed, repriced and change as texts: `?` for an unknown sum, and for a change of one; `+ ?` after an incomplete
    sum."""
    incomplete = [basis in (CostBasis.UNREPORTED, CostBasis.UNPRICED) for basis in bases]
    unknown = [lacks and not sum_ for sum_, lacks in zip(sums, incomplete, strict=False)]
    for sum_, none, lacks in zip(sums, [*unknown, any(unknown)], [*incomplete, any(incomplete)], strict=True):
        yield UNKNOWN if none else digits.show(sum_, currency) + f" + {UNKNOWN}" * lacks


def _total_rows(view: RepricingView, names: int, digits: Digits) -> Iterator[tuple[str, ...]]:
    before = {part.currency: part for part in view.billed.money}
    after = {part.currency: part for part in view.repriced.money}
    for currency in sorted(before | after):
        was = before[currency].contracted_cost if currency in before else ZERO
        is_ = after[currency].contracted_cost if currency in after else ZERO
        bases = (view.billed.cost_basis, view.repriced.cost_basis)
        sums = _figures((was, is_, difference(is_, was)), currency, bases, digits)
        yield ("total", *[""] * (names - 1), *sums, currency, _bases(*bases))


DEFAULT_BY = "tenant,stage"
By = Annotated[
    str | None,
    typer.Option(
        metavar="DIMENSION,...",
        help=f"Any of: {', '.join(Dimension)}; empty for the total only.  [default: {DEFAULT_BY}; with --prices: "
        f"{','.join(BY)}]",
        show_default=False,
    ),
]
OtherPrices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Show also the cost by this price file.", show_default=False),
]

commands = typer.Typer(help="What the work cost, and why.", no_args_is_help=True)


@commands.command("report")
def report_(
    by: By = None,
    since: Since = None,
    until: Until = None,
    tenant: Tenant = None,
    sort: Annotated[
        Sort | None, typer.Option(help="Order of the groups.  [default: name; with --top: total]", show_default=False)
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
    """Sums the charges by any dimensions; with --prices, next to the cost of the same usage by another price book. The
    five most expensive tickets, and why: --by task --top 5."""
    require_one_format(as_csv=as_csv, as_json=as_json)
    chosen = selection(since, until, tenant)
    if prices:
        if sort or top:
            raise typer.BadParameter("--sort and --top cannot be combined with --prices")
        names = BY if by is None else dimensions(by)
        changes = repricing(chosen, names, prices)
        if as_json:
            show_json(changes)
        else:
            write_repricing_csv(changes, names) if as_csv else show_repricing(changes, names, prices, exact=exact)
        return
    order = sort or (Sort.TOTAL if top else Sort.NAME)
    view = counted_report(chosen, dimensions(DEFAULT_BY if by is None else by), order, top)
    if as_json:
        show_json(view)
    else:
        write_csv(view) if as_csv else show(view, exact=exact)


def dimensions(text: str) -> tuple[Dimension, ...]:
    """Parses `a,b` into dimensions, each once. Raises BadParameter that lists all dimensions."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in frozenset(Dimension):
            raise typer.BadParameter(f"--by: unknown dimension {name!r}; use any of {', '.join(Dimension)}")
    return tuple(Dimension(name) for name in names)


commands.command("reconcile")(reconcile.reconcile)
commands.command("failures")(failure_cost.failures)
