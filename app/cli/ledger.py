"""`refund-agent ledger ...`: compares the ledger with Dapr's histories and the books, migrates and rebuilds it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from app.cli.client import AsJson
from app.cli.opening import settings_with_ledger
from app.cli.screen import Column, ColumnKind, ProgressMeter, Wide, figures, say, show_json, show_table
from app.domain.formatting import Digits, digits_for
from app.finance.cost_texts import INPUT, amounts, how_known, money_of, tokens
from app.pricing.charge_types import Meter

if TYPE_CHECKING:
    from app.finance.report_schemas import GroupView
    from app.ledger.audit.ledger_check import LedgerDifference, RebuiltView
    from app.ledger.audit.refunds import RefundsChecked

_NAMED = 5  # tasks that a note names; --json names all

commands = typer.Typer(help="Checks, migrates and rebuilds the ledger.", no_args_is_help=True)


@commands.command("check")
def check(as_json: AsJson = False) -> None:
    """Compares the ledger with workflow histories and journal, and its refunds with the books, in both directions; exit
    code 1 if they differ or the books cannot be read. Changes nothing."""
    settings = settings_with_ledger()
    from app import bootstrap
    from app.ledger.audit import refunds

    differences = bootstrap.check_ledger(settings)
    checked = refunds.check(settings.database_url, settings.daprd)
    differences += checked.differences
    _show_json(differences, checked) if as_json else _show(differences, checked)
    if differences or checked.problem:
        raise typer.Exit(1)


def _show_json(differences: tuple[LedgerDifference, ...], checked: RefundsChecked) -> None:
    from app.ledger.audit.ledger_check import CheckedView, DifferenceView, RefundsView

    rows = tuple(DifferenceView.model_validate(difference) for difference in differences)
    view = CheckedView(differences=rows, refunds=RefundsView.model_validate(checked))
    show_json(view)


def _show(differences: tuple[LedgerDifference, ...], checked: RefundsChecked) -> None:
    for difference in differences:
        say(str(difference))
    if checked.problem:
        say(f"the refunds could not be compared with all of the books: {checked.problem}")
    else:
        flight = f", {checked.in_flight:,} of them of tasks that have not ended" if checked.in_flight else ""
        say(f"refunds: {checked.in_ledger:,} in the ledger, {checked.in_books:,} in the books{flight}")
    say(_verdict(differences))


def _verdict(differences: tuple[LedgerDifference, ...]) -> str:
    if not differences:
        return "no difference"
    count = f"{len(differences):,} difference{'s' if len(differences) > 1 else ''}"
    if all(difference.remedy for difference in differences):
        return count
    return f"{count}; `refund-agent ledger rebuild` rebuilds the ledger from its sources"


@commands.command("migrate")
def migrate() -> None:
    """Brings the ledger's tables up to date, as the database role that owns them; the agent's role then needs no right
    to change them. Needs no sidecar. Changes nothing if the tables are up to date."""
    from app.config.settings import load
    from app.ledger.store import database
    from app.ledger.store.migrations import HEAD

    database.connect(load().database_url).dispose()
    say(f"the ledger's tables have version {HEAD}")


@commands.command("rebuild")
def rebuild(wide: Wide = False, as_json: AsJson = False) -> None:
    """Deletes the record's tables and rebuilds them from workflow histories and journal."""
    view = _rebuild()
    if as_json:
        show_json(view)
        return
    digits = digits_for(amounts(view.before, view.after), exact=True)
    rows = [_row("before", view.before, digits), _row("after", view.after, digits)]
    show_table(["", *figures("charges", "tokens in", "tokens out", "cost"), Column("known", ColumnKind.PROSE)], rows)
    same = view.before == view.after
    say(f"{view.tasks:,} tasks rebuilt, {'the same to the last digit' if same else 'with other sums'}")
    if view.kept:
        say(f"note: {_name_tasks(view.kept)} not changed, since Dapr's history of them is gone, unreadable or older")
    if view.restored:
        say(f"note: {_name_tasks(view.restored)} restored from histories, which hold no texts; send the tickets again")
    if view.repriced:
        say(f"note: {_name_tasks(view.repriced)} priced by today's book, since the book of their bill is unavailable")


def _rebuild() -> RebuiltView:
    settings = settings_with_ledger()
    from app import bootstrap
    from app.finance.report_schemas import group_view
    from app.ledger.audit.ledger_check import RebuiltView

    with ExitStack() as stack:
        rebuilt = bootstrap.rebuild_ledger(settings, _Progress(stack))
    return RebuiltView(
        tasks=rebuilt.tasks,
        kept=rebuilt.kept,
        repriced=rebuilt.repriced,
        restored=rebuilt.restored,
        before=group_view(rebuilt.before),
        after=group_view(rebuilt.after),
    )


def _name_tasks(task_ids: tuple[str, ...]) -> str:
    more = ", ..." if len(task_ids) > _NAMED else ""
    return f"{len(task_ids):,} tasks ({', '.join(task_ids[:_NAMED])}{more}) were"


class _Progress:
    """Shows the progress of a rebuild. The meter appears with the first task, when the total is known."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._meter: ProgressMeter | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        if self._meter is None:
            self._meter = self._stack.enter_context(ProgressMeter("tasks", total))
        while self._done < done:
            self._done += 1
            self._meter.step()


def _row(name: str, group: GroupView, digits: Digits) -> tuple[str, ...]:
    usage = (tokens(group, *INPUT), tokens(group, Meter.OUTPUT))
    return (name, f"{group.charges:,}", *usage, ", ".join(money_of(group, digits)), how_known(group, group.money))
