"""Holds the ledger against what it is made from: histories, journal, and its own charges. Changes nothing."""

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
from app.pricing.formula import standing

# What a check and a rebuild of the ledger tell programs: their JSON on the command line. Its keys stay.


class DifferenceView(View):
    """One thing that the ledger has otherwise than its sources; `task_id` is empty for a sum of many tasks. `source`
    says who expects it: `sources` (histories, journal, charges) or `books`; `remedy` is empty where a rebuild mends."""

    task_id: str
    what: str
    expected: str
    found: str
    source: str
    remedy: str


class RefundsView(View):
    """How many refunds the books and the ledger hold, and how many of the books' belong to tasks that have not ended;
    `problem` says why not all books were read, and is empty when they were."""

    in_books: int
    in_ledger: int
    in_flight: int
    problem: str


class CheckedView(View):
    """All differences, those of refunds among them. None, and no problem: the ledger says what its sources say."""

    differences: tuple[DifferenceView, ...]
    refunds: RefundsView


class RebuiltView(View):
    """What all charges summed to before and after. `kept`: tasks without a history that can be read, or with an older
    one than the record, left as they were. `repriced`: tasks whose price book cannot be had any more, so that today's
    was taken. `restored`: tasks that the ledger had lost; their tickets have no texts."""

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    restored: tuple[str, ...]
    before: GroupView
    after: GroupView


TAMPERED = "keep the state store as it is and find out who wrote to it; the record stays as it was"
PURGED = (
    "its history was purged before its end was recorded, so the record stays as it was; have Dapr keep histories of "
    "ended tasks for some minutes at least (stateRetentionPolicy)"
)
LOST = "the state store has lost it: `refund-agent task rerun {task_id}` begins it again"
OLDER = (
    "the state store is older than the ledger: where the task does not go on by itself, `refund-agent task terminate "
    "{task_id} --reason ...` and then `refund-agent task rerun {task_id}`"
)
LEFT_OVER = (
    "the state store is older than the ledger, whose record stays: `refund-agent task terminate {task_id} "
    "--reason ...` ends what is left there"
)

_AT_ONCE = 50
# When it was projected is no property of the task; calls are the journal's own; of decisions the ledger knows more;
# charges are compared one by one.
_APART = frozenset({"projected_at", "certain", "calls", "decisions", "charges"})
# As long as a task is under way, these go on.
_TICKETS = select(TICKETS.c.task_id, TICKETS.c.started, TICKETS.c.recorded, TICKETS.c.status, TICKETS.c.stood_at)
_TASKS = select(TASKS.c.task_id, TASKS.c.execution_id, TASKS.c.status, TASKS.c.events, TASKS.c.ended_at)
_MOVING = frozenset({"status", "parts", "pauses", "turns", "events", "size", "steps", "ended_at"})


@dataclass(frozen=True)
class LedgerDifference:
    """Something in the ledger that is not what its sources say. `task_id` is empty for a sum of many tasks.

    source: who says what is expected. remedy: what to do, where making the ledger again is not the way.
    """

    task_id: str
    what: str
    expected: str
    found: str
    source: str = "sources"
    remedy: str = ""

    def __str__(self) -> str:
        where = f"task {self.task_id}: " if self.task_id else ""
        mend = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.what}: the {self.source} say {self.expected}, the ledger {self.found}{mend}"


@dataclass(frozen=True)
class _Held:
    """What the ledger has of one task: the ticket's row, and the record's. None where it has none."""

    ticket: Any | None
    record: Any | None


def check(sources: Sources) -> Iterator[LedgerDifference]:
    """All differences, in any direction. Raises Unreachable when Dapr's histories cannot be read."""
    yield from _daily(sources)
    with sources.engine.connect() as connection:
        tickets = {row.task_id: row for row in connection.execute(_TICKETS)}
        tasks = {row.task_id: row for row in connection.execute(_TASKS)}
    started = {task_id for task_id, row in tickets.items() if row.started}
    task_ids = sorted({*started, *tasks, *sources.known()})
    books, records = BilledPriceBooks(sources.engine, sources.book), LedgerQueries(sources.engine)
    for start in range(0, len(task_ids), _AT_ONCE):
        some = task_ids[start : start + _AT_ONCE]
        runs, billed_by, written = sources.runs(some), books.of(some), sources.written(some)
        recorded = records.records(some)
        for task_id, run in runs.items():
            held = _Held(tickets.get(task_id), tasks.get(task_id))
            if not isinstance(run, WorkflowRun):
                yield from _unread(task_id, run, held)
            elif run.started_at is not None and (held.ticket or held.record or ticket_of(run)):
                expected = sources.record(run, written[task_id], billed_by.get(task_id))
                yield from _read(run, expected, held, recorded.get(task_id))
                yield from _journal(run, written[task_id])


def _unread(task_id: str, why: TaskNotFound | HistoryTampered, held: _Held) -> Iterator[LedgerDifference]:
    """There is no history to compare with. A record that is final is the only copy then, and stays."""
    if isinstance(why, HistoryTampered):
        yield LedgerDifference(task_id, "history", "one that verifies", _first_line(why), remedy=TAMPERED)
        return
    if held.ticket is None or held.ticket.recorded or (held.record and held.record.ended_at):
        return
    status = f"{held.ticket.status} since {_moment(held.ticket.stood_at)}"
    if TaskStatus(held.ticket.status).ended and held.record is not None:
        yield LedgerDifference(task_id, "record", f"{status}, as its worker told", held.record.status, remedy=PURGED)
    elif TaskStatus(held.ticket.status).ended:
        yield LedgerDifference(task_id, "record", f"{status}, as its worker told", "no record")
    else:
        yield LedgerDifference(task_id, "run", "none", status, remedy=LOST.format(task_id=task_id))


def _read(run: WorkflowRun, expected: TaskRecord, held: _Held, found: TaskRecord | None) -> Iterator[LedgerDifference]:
    """A history, against what the ledger has of its task."""
    now = f"{expected.status.value} since {_moment(run.ended_at or run.started_at)}"
    if held.ticket is None and ticket_of(run) is not None:
        yield LedgerDifference(run.instance_id, "ticket", f"a task that is {now}", "none")
    if held.record is not None and behind(expected, held.record):
        if run.ended_at is None:
            then = f"{held.record.status} with {held.record.events} events"
            remedy = (LEFT_OVER if held.record.ended_at else OLDER).format(task_id=run.instance_id)
            yield LedgerDifference(run.instance_id, "history", f"{now} with {run.events} events", then, remedy=remedy)
        return
    yield from _task(expected, found)
    if held.ticket is not None and held.ticket.recorded and held.ticket.status != expected.status.value:
        yield LedgerDifference(run.instance_id, "status in lists", expected.status.value, held.ticket.status)


def _journal(run: WorkflowRun, written: Written) -> Iterator[LedgerDifference]:
    """Model calls that the history proves."""
    for call in proven_calls(run, written.calls):
        yield LedgerDifference(
            run.instance_id, f"model call of {call.stage}, turn {call.turn}", describe_call(call), "no such row"
        )


def _daily(sources: Sources) -> Iterator[LedgerDifference]:
    with sources.engine.connect() as connection:
        for key, expected, found in disagreements(connection):
            named = ", ".join(str(value) for value in key[1:8] if value)
            yield LedgerDifference("", f"daily sum {day_of(key.day):%Y-%m-%d} {named}", _sums(expected), _sums(found))


def _sums(sums: tuple[int, int]) -> str:
    return f"{sums[1]} charges of {sums[0]}"


def _first_line(error: RefundAgentError) -> str:
    return str(error).splitlines()[0]


def _moment(at: datetime | None) -> str:
    return f"{minute(at)} UTC" if at else "its arrival"


def _task(expected: TaskRecord, found: TaskRecord | None) -> Iterator[LedgerDifference]:
    if found is None:
        if expected.ended_at is not None:
            yield LedgerDifference(
                expected.task_id, "record", f"{expected.status.value} since {expected.ended_at}", "no record"
            )
        return
    ignored = _APART if expected.ended_at is not None else _APART | _MOVING
    for field in fields(TaskRecord):
        old, new = getattr(expected, field.name), getattr(found, field.name)
        if field.name not in ignored and old != new:
            yield LedgerDifference(expected.task_id, field.name, _told(old), _told(new))
    if expected.ended_at is not None:
        yield from _charges(expected, found)


def _charges(expected: TaskRecord, found: TaskRecord) -> Iterator[LedgerDifference]:
    """Compared by what they are for and what they come to. What stands twice, or is missing, is named."""
    wanted, booked = _lines(expected.charges), _lines(found.charges)
    for line in sorted((wanted | booked).keys()):
        if wanted[line] != booked[line]:
            yield LedgerDifference(
                expected.task_id, f"charge {' '.join(line)}", f"{wanted[line]} of it", f"{booked[line]}"
            )


def _lines(charges: Sequence[Charge]) -> Counter[tuple[str, ...]]:
    return Counter(_line(charge) for charge in standing(charges))


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


def _told(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
