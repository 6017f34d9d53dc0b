"""Compares the ledger with its sources: Dapr's histories, the journal, and, for the daily sums, its charges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.dapr.history.model import WorkflowRun
from app.domain.errors import HistoryTampered, RefundAgentError, TaskNotFound
from app.domain.formatting import minute
from app.domain.models import TaskStatus
from app.domain.money import plain
from app.finance.report_schemas import GroupView, View
from app.ledger.audit.rebuilding import BilledPriceBooks
from app.ledger.reading.queries import LedgerQueries
from app.ledger.reading.summing import disagreements
from app.ledger.recording.projection import Written
from app.ledger.recording.recovering import describe_call, proven_calls, ticket_of
from app.ledger.recording.saving import behind
from app.ledger.recording.sources import Sources
from app.ledger.store.charge_rows import day_of
from app.ledger.store.tables import TASKS, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import Charge
from app.pricing.formula import effective_charges

# The JSON of `ledger check` and `ledger rebuild`. The keys are a public promise.


class DifferenceView(View):
    """One difference between the ledger and its sources; `task_id` is empty for a sum of many tasks. `source`: where
    `expected` comes from, `sources` (histories, journal, charges) or `books`. `remedy`: empty if a rebuild repairs
    it."""

    task_id: str
    what: str
    expected: str
    found: str
    source: str
    remedy: str


class RefundsView(View):
    """The number of refunds in the books and in the ledger, and of refunds in the books whose tasks have not ended.
    `problem`: why the books were not read completely; empty if they were."""

    in_books: int
    in_ledger: int
    in_flight: int
    problem: str


class CheckedView(View):
    """All differences, including those of refunds. Without any, and without a problem, the ledger agrees with its
    sources."""

    differences: tuple[DifferenceView, ...]
    refunds: RefundsView


class RebuiltView(View):
    """The result of a rebuild. `before`, `after`: the sum of all charges. `kept`: tasks whose record stays as it was,
    because their history is gone, unreadable or older. `repriced`: tasks that were priced with today's book, because
    theirs is no longer available. `restored`: tasks that were missing in the ledger; their tickets have no texts."""

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    restored: tuple[str, ...]
    before: GroupView
    after: GroupView


# The remedies of differences.
TAMPERED = "keep the state store as it is and find out who wrote to it; the record stays as it was"
PURGED = (
    "its history was purged before its end was recorded, so the record stays as it was; have Dapr keep histories of "
    "ended tasks for some minutes at least (stateRetentionPolicy)"
)
LOST = "the state store has lost it: `refund-agent task rerun {task_id}` restarts it"
OLDER = (
    "the state store is older than the ledger: if the task does not continue by itself, `refund-agent task terminate "
    "{task_id} --reason ...` and then `refund-agent task rerun {task_id}`"
)
LEFT_OVER = (
    "the state store is older than the ledger, whose record stays: `refund-agent task terminate {task_id} "
    "--reason ...` ends what is left there"
)

_BATCH = 50
_TICKETS = select(TICKETS.c.task_id, TICKETS.c.started, TICKETS.c.recorded, TICKETS.c.status, TICKETS.c.stood_at)
_TASKS = select(TASKS.c.task_id, TASKS.c.execution_id, TASKS.c.status, TASKS.c.events, TASKS.c.ended_at)
# Fields that are not compared: two describe the projection and not the task; calls come from the journal on both
# sides; the ledger has more decisions than the history; charges are compared one by one.
_NOT_COMPARED = frozenset({"projected_at", "certain", "calls", "decisions", "charges"})
# Fields that keep changing until the task has ended.
_CHANGING = frozenset({"status", "parts", "pauses", "turns", "events", "size", "steps", "ended_at"})


@dataclass(frozen=True)
class LedgerDifference:
    """A difference between the ledger and its sources. `task_id` is empty for a sum of many tasks.

    source: where `expected` comes from. remedy: what to do; empty if a rebuild repairs it.
    """

    task_id: str
    what: str
    expected: str
    found: str
    source: str = "sources"
    remedy: str = ""

    def __str__(self) -> str:
        where = f"task {self.task_id}: " if self.task_id else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.what}: the {self.source} say {self.expected}, the ledger {self.found}{remedy}"


@dataclass(frozen=True)
class _TaskRows:
    """The ledger's rows of one task, in `tickets` and `tasks`; None if there is none."""

    ticket: Any | None
    record: Any | None


def check(sources: Sources) -> Iterator[LedgerDifference]:
    """All differences, in both directions. Raises Unreachable if Dapr's histories cannot be read."""
    yield from _daily_differences(sources)
    with sources.engine.connect() as connection:
        tickets = {row.task_id: row for row in connection.execute(_TICKETS)}
        tasks = {row.task_id: row for row in connection.execute(_TASKS)}
    started = {task_id for task_id, row in tickets.items() if row.started}
    task_ids = sorted({*started, *tasks, *sources.instance_ids()})
    books, records = BilledPriceBooks(sources.engine, sources.book), LedgerQueries(sources.engine)
    for start in range(0, len(task_ids), _BATCH):
        batch = task_ids[start : start + _BATCH]
        runs, billed_by, written = sources.runs(batch), books.of(batch), sources.written(batch)
        recorded = records.records(batch)
        for task_id, run in runs.items():
            rows = _TaskRows(tickets.get(task_id), tasks.get(task_id))
            if not isinstance(run, WorkflowRun):
                yield from _differences_without_history(task_id, run, rows)
            elif run.started_at is not None and (rows.ticket or rows.record or ticket_of(run)):
                expected = sources.record(run, written[task_id], billed_by.get(task_id))
                yield from _differences_from_history(run, expected, rows, recorded.get(task_id))
                yield from _missing_calls(run, written[task_id])


def _differences_without_history(
    task_id: str, error: TaskNotFound | HistoryTampered, rows: _TaskRows
) -> Iterator[LedgerDifference]:
    """The differences of a task whose history cannot be read. A final record is then the only copy and correct."""
    if isinstance(error, HistoryTampered):
        yield LedgerDifference(task_id, "history", "one that verifies", _first_line(error), remedy=TAMPERED)
        return
    if rows.ticket is None or rows.ticket.recorded or (rows.record and rows.record.ended_at):
        return
    status = f"{rows.ticket.status} since {_minute(rows.ticket.stood_at)}"
    if TaskStatus(rows.ticket.status).ended and rows.record is not None:
        expected = f"{status}, as its worker reported"
        yield LedgerDifference(task_id, "record", expected, rows.record.status, remedy=PURGED)
    elif TaskStatus(rows.ticket.status).ended:
        yield LedgerDifference(task_id, "record", f"{status}, as its worker reported", "no record")
    else:
        yield LedgerDifference(task_id, "run", "none", status, remedy=LOST.format(task_id=task_id))


def _differences_from_history(
    run: WorkflowRun, expected: TaskRecord, rows: _TaskRows, saved: TaskRecord | None
) -> Iterator[LedgerDifference]:
    """The differences between a run's history and the ledger. `expected`: the record made from the history."""
    now = f"{expected.status.value} since {_minute(run.ended_at or run.started_at)}"
    if rows.ticket is None and ticket_of(run) is not None:
        yield LedgerDifference(run.instance_id, "ticket", f"a task that is {now}", "none")
    if rows.record is not None and behind(expected, rows.record):
        if run.ended_at is None:
            then = f"{rows.record.status} with {rows.record.events} events"
            remedy = (LEFT_OVER if rows.record.ended_at else OLDER).format(task_id=run.instance_id)
            yield LedgerDifference(run.instance_id, "history", f"{now} with {run.events} events", then, remedy=remedy)
        return
    yield from _record_differences(expected, saved)
    if rows.ticket is not None and rows.ticket.recorded and rows.ticket.status != expected.status.value:
        yield LedgerDifference(run.instance_id, "status in lists", expected.status.value, rows.ticket.status)


def _missing_calls(run: WorkflowRun, written: Written) -> Iterator[LedgerDifference]:
    """Model calls that the history proves and the journal lacks."""
    for call in proven_calls(run, written.calls):
        yield LedgerDifference(
            run.instance_id, f"model call of {call.stage}, turn {call.turn}", describe_call(call), "no such row"
        )


def _daily_differences(sources: Sources) -> Iterator[LedgerDifference]:
    with sources.engine.connect() as connection:
        for key, expected, stored in disagreements(connection):
            place = ", ".join(str(value) for value in key[1:8] if value)
            yield LedgerDifference("", f"daily sum {day_of(key.day):%Y-%m-%d} {place}", _sums(expected), _sums(stored))


def _sums(sums: tuple[int, int]) -> str:
    return f"{sums[1]} charges of {sums[0]}"


def _first_line(error: RefundAgentError) -> str:
    return str(error).splitlines()[0]


def _minute(at: datetime | None) -> str:
    return f"{minute(at)} UTC" if at else "its arrival"


def _record_differences(expected: TaskRecord, saved: TaskRecord | None) -> Iterator[LedgerDifference]:
    if saved is None:
        if expected.ended_at is not None:
            yield LedgerDifference(
                expected.task_id, "record", f"{expected.status.value} since {expected.ended_at}", "no record"
            )
        return
    ignored = _NOT_COMPARED if expected.ended_at is not None else _NOT_COMPARED | _CHANGING
    for field in fields(TaskRecord):
        expected_value, saved_value = getattr(expected, field.name), getattr(saved, field.name)
        if field.name not in ignored and expected_value != saved_value:
            yield LedgerDifference(expected.task_id, field.name, _shortened(expected_value), _shortened(saved_value))
    if expected.ended_at is not None:
        yield from _charge_differences(expected, saved)


def _charge_differences(expected: TaskRecord, saved: TaskRecord) -> Iterator[LedgerDifference]:
    """Charges whose number differs, compared by purpose, quantity and cost: missing, doubled or foreign ones."""
    wanted, booked = _lines(expected.charges), _lines(saved.charges)
    for line in sorted((wanted | booked).keys()):
        if wanted[line] != booked[line]:
            yield LedgerDifference(
                expected.task_id, f"charge {' '.join(line)}", f"{wanted[line]} of it", f"{booked[line]}"
            )


def _lines(charges: Sequence[Charge]) -> Counter[tuple[str, ...]]:
    return Counter(_line(charge) for charge in effective_charges(charges))


def _line(charge: Charge) -> tuple[str, ...]:
    quantity, amount = (
        plain(number) if number is not None else "?" for number in (charge.consumed_quantity, charge.contracted_cost)
    )
    wasted = ("wasted",) if charge.wasted else ()
    place = charge.step or "workflow"
    turn = (f"turn {charge.turn}.{charge.number}",) if charge.turn else ()
    return (
        place,
        *turn,
        charge.meter.value,
        *wasted,
        quantity,
        charge.usage_basis.value,
        f"= {amount} {charge.currency or ''}",
    )


def _shortened(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
