"""The table of `cost report --prices`: what the same usage costs by another price book, by any dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli import opening
from app.cli.figures import UNKNOWN, Digits, amounts, digest, digits_for
from app.cli.layout import Column, figures
from app.cli.opening import open_book
from app.cli.period import known_tenants, tenants
from app.cli.report import CURRENCY, KNOWN, NONE, below
from app.cli.screen import CsvCell, say, show_csv, show_table
from app.domain.money import ZERO, difference
from app.finance.rollup import Dimension
from app.pricing.charge_kinds import CostBasis

if TYPE_CHECKING:
    from app.finance.price_schemas import ChangeView, RepricingView
    from app.finance.report_schemas import Selection

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


def show(view: RepricingView, by: Sequence[Dimension], prices: Path, *, exact: bool) -> None:
    """The change for people."""
    digits = digits_for(_amounts(view), exact=exact)
    names = [Column(dimension, spare=int(dimension is Dimension.PROVIDER)) for dimension in by] or [Column("")]
    columns = [*names, *figures("billed", "repriced", "change"), CURRENCY, KNOWN]
    rows = [_row(change, by, digits) for change in view.changes] if by else []
    show_table(columns, [*rows, *_sums(view, len(names), digits)])
    say(f"billed by book {', '.join(map(digest, view.billed_books)) or NONE}, repriced by book {digest(view.book)}")
    for line in (*below(view.billed, view), *(f"note: {note}" for note in digits.notes())):
        say(line)
    if view.repriced.unpriced:
        lacking = f"{prices} has no price for {view.repriced.unpriced:,} charges, which are in no repriced sum"
        say(f"note: {lacking}; `refund-agent price check --prices {prices}` says what to add")


def write_csv(view: RepricingView, by: Sequence[Dimension]) -> None:
    """The change for spreadsheets."""
    figures_ = ("currency", "billed", "repriced", "change", "billed_known", "repriced_known")
    show_csv([*by, *figures_], _csv_rows(view, by))


def _csv_rows(view: RepricingView, by: Sequence[Dimension]) -> Iterator[list[CsvCell]]:
    for each in view.changes:
        known = (each.billed_known.value, each.repriced_known.value)
        yield [*(each.key[name] for name in by), each.currency, each.billed, each.repriced, each.change, *known]


def _amounts(view: RepricingView) -> Iterator[tuple[Decimal, str]]:
    for each in view.changes:
        yield from ((amount, each.currency) for amount in (each.billed, each.repriced, each.change))
    yield from amounts(view.billed, view.repriced)


def _row(change: ChangeView, by: Sequence[Dimension], digits: Digits) -> tuple[str, ...]:
    known = (change.billed_known, change.repriced_known)
    sums = (change.billed, change.repriced, change.change)
    key = (change.key[dimension] or NONE for dimension in by)
    return (*key, *_figures(sums, change.currency, known, digits), change.currency, _both(*known))


def _both(billed: CostBasis, repriced: CostBasis) -> str:
    return billed if billed is repriced else f"{billed}, then {repriced}"


def _figures(
    sums: tuple[Decimal, Decimal, Decimal], currency: str, known: tuple[CostBasis, CostBasis], digits: Digits
) -> Iterator[str]:
    """Billed, repriced, change. A sum that misses something says so; without one of them there is no change to see."""
    lacking = [each in (CostBasis.UNREPORTED, CostBasis.UNPRICED) for each in known]
    nothing = [lacks and not sum_ for sum_, lacks in zip(sums, lacking, strict=False)]
    for sum_, none, lacks in zip(sums, [*nothing, any(nothing)], [*lacking, any(lacking)], strict=True):
        yield UNKNOWN if none else digits.show(sum_, currency) + f" + {UNKNOWN}" * lacks


def _sums(view: RepricingView, names: int, digits: Digits) -> Iterator[tuple[str, ...]]:
    before = {each.currency: each for each in view.billed.money}
    after = {each.currency: each for each in view.repriced.money}
    for currency in sorted(before | after):
        was = before[currency].amount if currency in before else ZERO
        is_ = after[currency].amount if currency in after else ZERO
        known = (view.billed.known, view.repriced.known)
        sums = _figures((was, is_, difference(is_, was)), currency, known, digits)
        yield ("total", *[""] * (names - 1), *sums, currency, _both(*known))
