"""Writes records into the ledger: charges are added and corrected, never changed; the rest is as it is now.

Writing the same record again changes nothing, and neither does one that is behind what is there: of two who record a
task at once, the one who read its history earlier may come later. All of it, the daily sums included, is one
transaction of the caller's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, delete, insert, or_, select, update

from app.domain.models import TaskStatus
from app.domain.standing import Standing
from app.ledger.store import decision_log, standings
from app.ledger.store.charge_rows import (
    ChargeLine,
    DailySums,
    Key,
    Place,
    PriceRow,
    corrected,
    line_of,
    place_of,
    price_row,
)
from app.ledger.store.tables import ATTEMPTS, CHARGES, FAILURES, PAUSES, PRICES, STEPS, TASKS, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.ledger.store.writer import insert_many

# Built once: composing a statement costs more than running it. Whoever else saves one of these tasks waits at `_KNOWN`.
_KNOWN = (
    select(TASKS)
    .where(TASKS.c.task_id.in_(bindparam("ids", expanding=True)))
    .order_by(TASKS.c.task_no)
    .with_for_update()
)
_LINES = (
    select(CHARGES, PRICES.c.model)
    .join(PRICES, PRICES.c.price_no == CHARGES.c.price_no)
    .where(CHARGES.c.task_no.in_(bindparam("numbers", expanding=True)))
)
_STEPS = select(STEPS).where(STEPS.c.task_no.in_(bindparam("numbers", expanding=True)))
_NEW_TASKS = insert(TASKS).returning(TASKS.c.task_id, TASKS.c.task_no)
_CHANGE_TASK = (
    update(TASKS)
    .where(TASKS.c.task_no == bindparam("this"))
    .values({column.name: bindparam(column.name) for column in TASKS.c if column.name not in ("task_no", "task_id")})
)
_INSERT = {table: insert(table) for table in (STEPS, ATTEMPTS, FAILURES, PAUSES, CHARGES)}
_DELETE = {
    table: delete(table).where(table.c.task_no == bindparam("this")) for table in (STEPS, ATTEMPTS, FAILURES, PAUSES)
}
# A history that could be read leaves no doubt about its task.
_RECORDED = (
    update(TICKETS)
    .where(
        TICKETS.c.task_id == bindparam("the_task"),
        or_(TICKETS.c.recorded != bindparam("final"), TICKETS.c.caveat != ""),
    )
    .values(recorded=bindparam("final"), caveat="")
)
_LOCK = update(TICKETS).where(TICKETS.c.sequence < 0).values(recorded=TICKETS.c.recorded)
_MICROSECOND = timedelta(microseconds=1)


def save(
    connection: Connection,
    records: Sequence[TaskRecord],
    prices: Mapping[PriceRow, int],
    standing: Mapping[str, Standing] = MappingProxyType({}),
) -> frozenset[str]:
    """Writes each record, and where its task stands as far as `standing` says; returns the tasks whose end is new to
    the ledger. `prices` has the number of each charge's price. A task may be among them once only."""
    # All who save go through the tasks in the same order, so that none waits for one who waits for him.
    records = sorted(records, key=lambda record: record.task_id)
    connection.execute(_LOCK)  # SQLite then lets nobody else write between what is read and what is made of it
    known = {row.task_id: row for row in connection.execute(_KNOWN, {"ids": [record.task_id for record in records]})}
    records = [record for record in records if not behind(record, known.get(record.task_id))]
    if not records:
        return frozenset()
    standings.found(connection, {name: standing[name] for task in records if (name := task.task_id) in standing})
    connection.execute(_RECORDED, [{"the_task": record.task_id, "final": record.final} for record in records])
    _write(connection, records, known, prices)
    for record in records:
        decision_log.keep(connection, record.task_id, record.decisions)
    ended = {record.task_id for record in records if record.ended_at is not None}
    return frozenset(ended - {task_id for task_id, row in known.items() if row.ended_at is not None})


def behind(record: TaskRecord, known: Row[Any] | None) -> bool:
    """Whether the ledger knows more of this run already: a history only grows, and a run that was completed stays so,
    unless the state store was restored from an older backup."""
    if known is None or known.execution_id != record.execution_id:
        return False
    completed = TaskStatus.COMPLETED.value
    return bool(known.events > record.events or (known.status == completed and record.status.value != completed))


def _write(
    connection: Connection, records: Sequence[TaskRecord], known: Mapping[str, Row[Any]], prices: Mapping[PriceRow, int]
) -> None:
    old = _lines(connection, [row.task_no for row in known.values()])
    before = _places(connection, known.values())
    numbers = _tasks(connection, records, {task_id: row.task_no for task_id, row in known.items()})
    rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in _INSERT}
    sums = DailySums()
    for record in records:
        number, place = numbers[record.task_id], place_of(record)
        lines = tuple(corrected(old[number], _wanted(record, prices)))
        sums.move(before.get(number, place), place, old[number])
        sums.count(place, lines)
        rows[CHARGES] += [line.row(number) for line in lines]
        _describe(rows, record, number)
    for table, statement in _INSERT.items():
        insert_many(connection, statement, rows[table])
    sums.write(connection)


def _places(connection: Connection, known: Collection[Row[Any]]) -> dict[int, Place]:
    """Where the tasks' lines were counted so far."""
    steps: defaultdict[int, dict[int, tuple[str, str, str]]] = defaultdict(dict)
    if known:
        for row in connection.execute(_STEPS, {"numbers": [task.task_no for task in known]}):
            steps[row.task_no][row.step] = (row.stage, row.name, row.tool)
    return {
        task.task_no: Place(task.tenant, task.agent, task.workflow, task.outcome, steps[task.task_no]) for task in known
    }


def _lines(connection: Connection, numbers: Sequence[int]) -> defaultdict[int, list[ChargeLine]]:
    """What the tasks were charged so far."""
    found: defaultdict[int, list[ChargeLine]] = defaultdict(list)
    if numbers:
        for row in connection.execute(_LINES, {"numbers": numbers}):
            key = Key(row.step, row.turn, row.number, row.meter, row.wasted)
            line = ChargeLine(
                key, row.correction, row.price_no, row.consumed_quantity, row.usage_basis, row.at, row.model
            )
            found[row.task_no].append(line)
    return found


def _tasks(connection: Connection, records: Sequence[TaskRecord], known: Mapping[str, int]) -> dict[str, int]:
    """Writes the tasks' own rows, and clears what is written anew; returns their numbers."""
    numbers = dict(known)
    new = [_task_row(record) for record in records if record.task_id not in known]
    if new:
        numbers |= {row.task_id: row.task_no for row in connection.execute(_NEW_TASKS, new)}
    changed = [_task_row(record) | {"this": known[record.task_id]} for record in records if record.task_id in known]
    if changed:
        for row in changed:
            del row["task_id"]
        connection.execute(_CHANGE_TASK, changed)
        for statement in _DELETE.values():
            connection.execute(statement, [{"this": row["this"]} for row in changed])
    return numbers


def _wanted(record: TaskRecord, prices: Mapping[PriceRow, int]) -> list[ChargeLine]:
    steps = {step.execution_id: step.step for step in record.steps}
    return [line_of(charge, steps.get(charge.execution_id, 0), prices[price_row(charge)]) for charge in record.charges]


def _task_row(record: TaskRecord) -> dict[str, Any]:
    refund = record.refund
    return {
        "task_id": record.task_id,
        "tenant": record.tenant,
        "agent": record.agent,
        "workflow": record.workflow,
        "version": record.version,
        "execution_id": record.execution_id,
        "rerun_of": record.rerun_of,
        "status": record.status.value,
        "outcome": record.outcome.value if record.outcome else "",
        "category": record.category,
        "order_id": refund.order_id if refund else None,
        "refund_amount": str(refund.amount) if refund else None,
        "refund_currency": refund.currency if refund else None,
        "refund_id": record.refund_id,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "projected_at": record.projected_at,
        "parts": json.dumps({part.value: length // _MICROSECOND for part, length in record.parts.items()}),
        "turns": record.turns,
        "events": record.events,
        "size": record.size,
        "trace_parent": record.trace_parent,
    }


def _describe(rows: dict[Table, list[dict[str, Any]]], record: TaskRecord, number: int) -> None:
    """The rows of steps, attempts, failures and pauses."""
    for step in record.steps:
        rows[STEPS].append(
            {
                "task_no": number,
                "step": step.step,
                "execution_id": step.execution_id,
                "name": step.name,
                "stage": step.stage,
                "tool": step.tool,
                "active_us": step.active // _MICROSECOND,
                "lost_us": step.lost // _MICROSECOND,
                "writes": step.writes,
                "answered_by": step.answered_by.value if step.answered_by else None,
            }
        )
        for attempt in step.attempts:
            rows[ATTEMPTS].append(
                {
                    "task_no": number,
                    "step": step.step,
                    "number": attempt.number,
                    "event_id": attempt.event_id,
                    "scheduled_at": attempt.scheduled_at,
                    "ended_at": attempt.ended_at,
                    "outcome": attempt.outcome.value,
                    "error": attempt.error,
                }
            )
    for place, failure in enumerate(record.failures):
        rows[FAILURES].append(
            {
                "task_no": number,
                "number": place,
                "step": failure.step,
                "attempt": failure.attempt,
                "execution": failure.execution,
                "at": failure.at,
                "resumed_at": failure.resumed_at,
                "kind": failure.kind.value,
                "cause": failure.cause.value,
                "worker": failure.worker,
            }
        )
    for place, pause in enumerate(record.pauses):
        rows[PAUSES].append(
            {
                "task_no": number,
                "number": place,
                "part": pause.part.value,
                "label": pause.label[:64],
                "started_at": pause.started_at,
                "ended_at": pause.ended_at,
            }
        )
