"""`refund-agent cost ...`: what the work cost, by whom and by what."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import opening, reconcile, tax
from app.cli.connection import AsJson
from app.cli.figures import (
    INPUT,
    KINDS,
    UNKNOWN,
    WORKFLOW,
    Digits,
    Exact,
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
from app.cli.opening import open_book
from app.cli.period import Since, Tenant, Until, known_tenants, selection, tenants, when
from app.cli.screen import Wide, say, show_json, show_table
from app.cost.money import ZERO, difference
from app.cost.rollup import Dimension
from app.cost.words import Line, MoneyKnown

if TYPE_CHECKING:
    from app.cost.price_views import ChangeView, RepricingView
    from app.cost.views import GroupView, ReportView, Selection

DEFAULT_BY = "tenant,stage"
NONE = "-"
_KNOWN = Column("known", Kind.PROSE, common=True)
_CURRENCY = Column("currency", common=True)
_SPARE = {"orchestration": 4, "compute": 3, "model": 1}  # what was spent in vain is never left out
_FIGURES: tuple[Column | str, ...] = (
    *figures("tokens in"),
    Column("cached", Kind.FIGURE, spare=2),
    *figures("tokens out"),
    *(Column(kind, Kind.FIGURE, spare=_SPARE.get(kind, 0)) for kind in KINDS),
    *figures("total"),
    _CURRENCY,
    _KNOWN,
)
_CHANGES: tuple[Column | str, ...] = (
    "kind",
    Column("provider", spare=1),
    "model",
    *figures("billed", "repriced", "change"),
    _CURRENCY,
    _KNOWN,
)
By = Annotated[
    str | None,
    typer.Option(
        metavar="DIMENSION,...",
        help=f"Any of: {', '.join(Dimension)}; empty for the total alone.  [default: {DEFAULT_BY}]",
        show_default=False,
    ),
]
OtherPrices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Also what it would cost by this price file.", show_default=False),
]

commands = typer.Typer(help="What the work cost, and why.", no_args_is_help=True)


@commands.command("report")
def report(
    by: By = None,
    since: Since = None,
    until: Until = None,
    tenant: Tenant = None,
    prices: OtherPrices = None,
    exact: Exact = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Sums what was charged, by any dimensions; with --prices, what the same usage costs by another book."""
    if prices and by is not None:
        raise typer.BadParameter("--by does not go with --prices: the change is shown by kind and model")
    chosen = selection(since, until, tenant)
    if prices:
        _show_repricing(_repriced(chosen, prices), prices, exact=exact, as_json=as_json)
    else:
        view = _summed(chosen, dimensions(DEFAULT_BY if by is None else by))
        _show_report(view, exact=exact, as_json=as_json)


def dimensions(text: str) -> tuple[Dimension, ...]:
    """The dimensions of `a,b`, each once. Raises BadParameter that lists those there are."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in frozenset(Dimension):
            raise typer.BadParameter(f"--by: there is no dimension {name!r}; there are {', '.join(Dimension)}")
    return tuple(Dimension(name) for name in names)


def _summed(chosen: Selection, by: tuple[Dimension, ...]) -> ReportView:
    from app.cost.views import report_view

    records = opening.open_records()
    known_tenants(chosen, records)
    return report_view(records.report(by, chosen.since, chosen.until, tenants(chosen)), chosen)


def _repriced(chosen: Selection, prices: Path) -> RepricingView:
    from app.cost.price_views import repricing_view
    from app.cost.repricing import reprice

    book = open_book(prices)
    records = opening.open_records()
    known_tenants(chosen, records)
    charges = tuple(records.charges(chosen.since, chosen.until, tenants(chosen)))
    return repricing_view(reprice(charges, book), {charge.book_digest for charge in charges}, chosen)


def _show_report(view: ReportView, *, exact: bool, as_json: bool) -> None:
    if as_json:
        show_json(view.model_dump(mode="json"))
        return
    names = [dimension.value for dimension in view.by] or [""]
    digits = digits_for(amounts(view.total, *view.groups), exact=exact)
    keys = [[_value(name, group.key[name]) for name in names] for group in view.groups] if view.by else []
    rows = [row for key, group in zip(keys, view.groups, strict=False) for row in _rows(key, group, digits)]
    rows += _rows(["total", *[""] * (len(names) - 1)], view.total, digits)
    show_table([*names, *_FIGURES], rows)
    for line in (*_below(view.total, view), *(f"note: {note}" for note in digits.notes())):
        say(line)


def _value(dimension: str, value: str) -> str:
    if dimension in (Dimension.STAGE, Dimension.STEP):
        return value or WORKFLOW
    return digest(value) if dimension == Dimension.PRICE_BOOK else value or NONE


def _rows(key: list[str], group: GroupView, digits: Digits) -> Iterator[tuple[str, ...]]:
    """A row for each currency, which are never added; the tokens stand in the first."""
    spent = (tokens(group, *INPUT), tokens(group, Line.CACHED_INPUT), tokens(group, Line.OUTPUT))
    for number, sum_ in enumerate(group.money or (None,)):
        kinds = (of_kind(sum_, kind, digits) for kind in KINDS)
        currency = sum_.currency if sum_ else ""
        known = how_known(group, (sum_,) if sum_ else ())
        yield (*key, *(spent if number == 0 else ("", "", "")), *kinds, amount(sum_, group, digits), currency, known)


def _below(total: GroupView, chosen: Selection) -> Iterator[str]:
    if not total.charges:
        yield f"nothing was charged{when(chosen.since, chosen.until) or ' yet'}"
    yield from (f"note: {line}" for line in remarks(total))


def _show_repricing(view: RepricingView, prices: Path, *, exact: bool, as_json: bool) -> None:
    if as_json:
        show_json(view.model_dump(mode="json"))
        return
    digits = digits_for(_changed(view), exact=exact)
    rows = [_change_row(change, digits) for change in view.changes]
    show_table(_CHANGES, [*rows, *_sums(view, digits)])
    say(f"billed by book {', '.join(map(digest, view.billed_books)) or NONE}, repriced by book {digest(view.book)}")
    for line in (*_below(view.billed, view), *(f"note: {note}" for note in digits.notes())):
        say(line)
    if view.repriced.unpriced:
        lacking = f"{prices} has no price for {view.repriced.unpriced:,} charges, which are in no repriced sum"
        say(f"note: {lacking}; `refund-agent price check --prices {prices}` says what to add")


def _changed(view: RepricingView) -> Iterator[tuple[Decimal, str]]:
    for each in view.changes:
        yield from ((amount, each.currency) for amount in (each.billed, each.repriced, each.change))
    yield from amounts(view.billed, view.repriced)


def _change_row(change: ChangeView, digits: Digits) -> tuple[str, ...]:
    known = (change.billed_known, change.repriced_known)
    sums = (change.billed, change.repriced, change.change)
    what = (change.kind, change.provider or NONE, change.model or NONE)
    return (*what, *_figures(sums, change.currency, known, digits), change.currency, f"{known[0]}, {known[1]}")


def _figures(
    sums: tuple[Decimal, Decimal, Decimal], currency: str, known: tuple[MoneyKnown, MoneyKnown], digits: Digits
) -> Iterator[str]:
    """Billed, repriced, change. A sum that misses something says so; without one of them there is no change to see."""
    lacking = [each in (MoneyKnown.UNREPORTED, MoneyKnown.UNPRICED) for each in known]
    nothing = [lacks and not sum_ for sum_, lacks in zip(sums, lacking, strict=False)]
    for sum_, none, lacks in zip(sums, [*nothing, any(nothing)], [*lacking, any(lacking)], strict=True):
        yield UNKNOWN if none else digits.show(sum_, currency) + f" + {UNKNOWN}" * lacks


def _sums(view: RepricingView, digits: Digits) -> Iterator[tuple[str, ...]]:
    before = {each.currency: each for each in view.billed.money}
    after = {each.currency: each for each in view.repriced.money}
    for currency in sorted(before | after):
        was = before[currency].amount if currency in before else ZERO
        is_ = after[currency].amount if currency in after else ZERO
        known = (view.billed.known, view.repriced.known)
        sums = _figures((was, is_, difference(is_, was)), currency, known, digits)
        yield ("total", "", "", *sums, currency, f"{known[0]}, {known[1]}")


commands.command("reconcile")(reconcile.reconcile)
commands.command("tax")(tax.tax)
