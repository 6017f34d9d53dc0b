"""Holds the ledger against what it is made from: histories, journal, and its own charges. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import select

from app.cost.charges import standing
from app.cost.money import plain
from app.cost.values import Charge
from app.errors import HistoryTampered, RefundAgentError, TaskNotFound
from app.history.model import Run
from app.ledger.daily import day_of
from app.ledger.reading import Records
from app.ledger.rebuilding import Books
from app.ledger.record import TaskRecord
from app.ledger.record_tables import TASKS
from app.ledger.sources import Sources
from app.ledger.summing import disagreements
from app.ledger.tables import TICKETS

_AT_ONCE = 50
# When it was projected is no property of the task; calls are the journal's own; of decisions the ledger knows more;
# charges are compared one by one.
_APART = frozenset({"projected_at", "calls", "decisions", "charges"})
# As long as a task is under way, these go on.
_MOVING = frozenset({"status", "parts", "pauses", "turns", "events", "size", "steps", "ended_at"})


@dataclass(frozen=True)
class Difference:
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


def check(sources: Sources) -> Iterator[Difference]:
    """All differences. Raises Unreachable when Dapr's histories cannot be read."""
    yield from _daily(sources)
    with sources.engine.connect() as connection:
        started = set(connection.execute(select(TICKETS.c.task_id).where(TICKETS.c.started)).scalars())
        recorded = set(connection.execute(select(TASKS.c.task_id)).scalars())
    task_ids = sorted(started | recorded)
    books, records = Books(sources.engine, sources.book), Records(sources.engine)
    for start in range(0, len(task_ids), _AT_ONCE):
        some = task_ids[start : start + _AT_ONCE]
        billed_by, written = books.of(some), sources.written(some)
        for task_id in some:
            run = _run(sources, task_id)
            if isinstance(run, Difference):
                yield run
            elif run is not None:
                expected = sources.record(run, written[task_id], billed_by.get(task_id))
                yield from _task(expected, records.record(task_id) if task_id in recorded else None)


def _daily(sources: Sources) -> Iterator[Difference]:
    with sources.engine.connect() as connection:
        for key, expected, found in disagreements(connection):
            named = ", ".join(str(value) for value in key[1:8] if value)
            yield Difference("", f"daily sum {day_of(key.day):%Y-%m-%d} {named}", _sums(expected), _sums(found))


def _sums(sums: tuple[int, int]) -> str:
    return f"{sums[1]} charges of {sums[0]}"


def _run(sources: Sources, task_id: str) -> Run | Difference | None:
    """None for one that has not begun, or whose history Dapr holds no more: there is nothing to compare with."""
    try:
        run = sources.history(task_id)
    except TaskNotFound:
        return None
    except HistoryTampered as error:
        return Difference(task_id, "history", "one that verifies", _first_line(error))
    return run if run.started_at is not None else None


def _first_line(error: RefundAgentError) -> str:
    return str(error).splitlines()[0]


def _task(expected: TaskRecord, found: TaskRecord | None) -> Iterator[Difference]:
    if found is None:
        if expected.ended_at is not None:
            yield Difference(
                expected.task_id, "record", f"{expected.status.value} since {expected.ended_at}", "no record"
            )
        return
    ignored = _APART if expected.ended_at is not None else _APART | _MOVING
    for field in fields(TaskRecord):
        old, new = getattr(expected, field.name), getattr(found, field.name)
        if field.name not in ignored and old != new:
            yield Difference(expected.task_id, field.name, _told(old), _told(new))
    if expected.ended_at is not None:
        yield from _charges(expected, found)


def _charges(expected: TaskRecord, found: TaskRecord) -> Iterator[Difference]:
    """Compared by what they are for and what they come to. What stands twice, or is missing, is named."""
    wanted, booked = _lines(expected.charges), _lines(found.charges)
    for line in sorted((wanted | booked).keys()):
        if wanted[line] != booked[line]:
            yield Difference(expected.task_id, f"charge {' '.join(line)}", f"{wanted[line]} of it", f"{booked[line]}")


def _lines(charges: Sequence[Charge]) -> Counter[tuple[str, ...]]:
    return Counter(_line(charge) for charge in standing(charges))


def _line(charge: Charge) -> tuple[str, ...]:
    quantity, amount = (plain(each) if each is not None else "?" for each in (charge.quantity, charge.amount))
    vain = ("rerun",) if charge.rerun else ()
    place = charge.step or "workflow"
    turn = (f"turn {charge.turn}.{charge.number}",) if charge.turn else ()
    return (place, *turn, charge.line.value, *vain, quantity, charge.known.value, f"= {amount} {charge.currency or ''}")


def _told(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
