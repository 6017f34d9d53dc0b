"""`refund-agent ledger ...`: holds the ledger against Dapr's histories and the books, and makes it again."""

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

commands = typer.Typer(help="Checks the ledger, and makes it again.", no_args_is_help=True)


@commands.command("check")
def check(as_json: AsJson = False) -> None:
    """Holds the ledger against workflow histories and journal, and its refunds against the books', both ways; exit code
    1 when they differ, or when the books cannot be read. Changes nothing."""
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
        say(f"the refunds were not held against all of the books: {checked.problem}")
    else:
        flight = f", {checked.in_flight:,} of them of tasks that go on" if checked.in_flight else ""
        say(f"refunds: {checked.in_ledger:,} in the ledger, {checked.in_books:,} in the books{flight}")
    say(_verdict(differences))


def _verdict(differences: tuple[LedgerDifference, ...]) -> str:
    if not differences:
        return "no difference"
    count = f"{len(differences):,} difference{'s' if len(differences) > 1 else ''}"
    if all(difference.remedy for difference in differences):
        return count
    return f"{count}; `refund-agent ledger rebuild` makes the ledger again from its sources"


@commands.command("migrate")
def migrate() -> None:
    """Brings the ledger's tables up to date, as the role that owns them; the agent's role needs no right to change them
    then. Needs no sidecar. Again on tables that are up to date it changes nothing."""
    from app.config.settings import load
    from app.ledger.store import database
    from app.ledger.store.migrations import HEAD

    database.connect(load().database_url).dispose()
    say(f"the ledger's tables are of version {HEAD}")


@commands.command("rebuild")
def rebuild(wide: Wide = False, as_json: AsJson = False) -> None:
    """Throws the record's tables away and makes them again from workflow histories and journal."""
    view = _rebuilt()
    if as_json:
        show_json(view)
        return
    digits = digits_for(amounts(view.before, view.after), exact=True)
    rows = [_row("before", view.before, digits), _row("after", view.after, digits)]
    show_table(["", *figures("charges", "tokens in", "tokens out", "cost"), Column("known", ColumnKind.PROSE)], rows)
    same = view.before == view.after
    say(f"{view.tasks:,} tasks made again, {'the same to the last digit' if same else 'with other sums'}")
    if view.kept:
        say(
            f"note: {_named(view.kept)} left as they were, since Dapr holds no history of them that can be read, "
            "or an older one"
        )
    if view.restored:
        say(f"note: {_named(view.restored)} restored from histories, which hold no texts; send the tickets again")
    if view.repriced:
        say(f"note: {_named(view.repriced)} priced by today's book, since the one they were billed by cannot be had")


def _rebuilt() -> RebuiltView:
    settings = settings_with_ledger()
    from app import bootstrap
    from app.finance.report_schemas import group_view
    from app.ledger.audit.ledger_check import RebuiltView

    with ExitStack() as stack:
        done = bootstrap.rebuild_ledger(settings, _Progress(stack))
    return RebuiltView(
        tasks=done.tasks,
        kept=done.kept,
        repriced=done.repriced,
        restored=done.restored,
        before=group_view(done.before),
        after=group_view(done.after),
    )


def _named(task_ids: tuple[str, ...]) -> str:
    more = ", ..." if len(task_ids) > _NAMED else ""
    return f"{len(task_ids):,} tasks ({', '.join(task_ids[:_NAMED])}{more}) were"


class _Progress:
    """Shows how many tasks of how many are done; how many there are is known when the first one is."""

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
    spent = (tokens(group, *INPUT), tokens(group, Meter.OUTPUT))
    return (name, f"{group.charges:,}", *spent, ", ".join(money_of(group, digits)), how_known(group, group.money))
