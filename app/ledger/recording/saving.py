"""Saves records in the ledger. Charges are added and corrected, never changed; all other rows are replaced.

Saving a record twice changes nothing, and a record older than the saved one is skipped: when two processes record a
task at the same time, the one that read the history first may save last. Everything, the daily sums included, is
written in the caller's transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
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
from app.ledger.store.record_rows import add_rows, task_row
from app.ledger.store.tables import ATTEMPTS, CHARGES, FAILURES, PAUSES, PRICES, STEPS, TASKS, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.ledger.store.writer import insert_many

# Built once: composing a statement costs more than running it. `_KNOWN` locks the tasks' rows on PostgreSQL, so that
# another process that saves one of these tasks waits there.
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
# The history was read, so any caveat about the task is obsolete.
_RECORDED = (
    update(TICKETS)
    .where(
        TICKETS.c.task_id == bindparam("the_task"),
        or_(TICKETS.c.recorded != bindparam("final"), TICKETS.c.caveat != ""),
    )
    .values(recorded=bindparam("final"), caveat="")
)
_LOCK = update(TICKETS).where(TICKETS.c.sequence < 0).values(recorded=TICKETS.c.recorded)


def save(
    connection: Connection,
    records: Sequence[TaskRecord],
    prices: Mapping[PriceRow, int],
    standing: Mapping[str, Standing] = MappingProxyType({}),
) -> frozenset[str]:
    """Saves the records, and the tasks' new standings if there are any. Returns the ids of the tasks that the ledger
    did not have as ended before. `prices`: the number of each charge's price. Each task must occur only once."""
    # Every process locks the tasks in the same order, which rules out deadlocks.
    records = sorted(records, key=lambda record: record.task_id)
    connection.execute(_LOCK)  # takes SQLite's write lock before reading, so that nothing changes in between
    known = {row.task_id: row for row in connection.execute(_KNOWN, {"ids": [record.task_id for record in records]})}
    records = [record for record in records if not behind(record, known.get(record.task_id))]
    if not records:
        return frozenset()
    standings.update_standings(
        connection, {record.task_id: standing[record.task_id] for record in records if record.task_id in standing}
    )
    connection.execute(_RECORDED, [{"the_task": record.task_id, "final": record.final} for record in records])
    _write(connection, records, known, prices)
    for record in records:
        decision_log.keep(connection, record.task_id, record.decisions)
    ended = {record.task_id for record in records if record.ended_at is not None}
    return frozenset(ended - {task_id for task_id, row in known.items() if row.ended_at is not None})


def behind(record: TaskRecord, known: Row[Any] | None) -> bool:
    """Whether the saved row is newer than this record of the same run: it has more events, or it is completed and the
    record is not. A history only grows and a completed run stays completed, unless the state store was restored from
    an older backup."""
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
        lines = tuple(corrected(old[number], _charge_lines(record, prices)))
        sums.move(before.get(number, place), place, old[number])
        sums.count(place, lines)
        rows[CHARGES] += [line.row(number) for line in lines]
        add_rows(rows, record, number)
    for table, statement in _INSERT.items():
        insert_many(connection, statement, rows[table])
    sums.write(connection)


def _places(connection: Connection, known: Collection[Row[Any]]) -> dict[int, Place]:
    """The attributes under which the daily sums count the saved lines of these tasks, by task number."""
    steps: defaultdict[int, dict[int, tuple[str, str, str]]] = defaultdict(dict)
    if known:
        for row in connection.execute(_STEPS, {"numbers": [task.task_no for task in known]}):
            steps[row.task_no][row.step] = (row.stage, row.name, row.tool)
    return {
        task.task_no: Place(task.tenant, task.agent, task.workflow, task.outcome, steps[task.task_no]) for task in known
    }


def _lines(connection: Connection, numbers: Sequence[int]) -> defaultdict[int, list[ChargeLine]]:
    """The saved charge lines, by task number."""
    lines: defaultdict[int, list[ChargeLine]] = defaultdict(list)
    if numbers:
        for row in connection.execute(_LINES, {"numbers": numbers}):
            key = Key(row.step, row.turn, row.number, row.meter, row.wasted)
            line = ChargeLine(
                key, row.correction, row.price_no, row.consumed_quantity, row.usage_basis, row.at, row.model
            )
            lines[row.task_no].append(line)
    return lines


def _tasks(connection: Connection, records: Sequence[TaskRecord], known: Mapping[str, int]) -> dict[str, int]:
    """Inserts or updates the rows of `tasks`, and deletes a changed task's rows that are then inserted anew. Returns
    the task numbers by id."""
    numbers = dict(known)
    new = [task_row(record) for record in records if record.task_id not in known]
    if new:
        numbers |= {row.task_id: row.task_no for row in connection.execute(_NEW_TASKS, new)}
    changed = [task_row(record) | {"this": known[record.task_id]} for record in records if record.task_id in known]
    if changed:
        for row in changed:
            del row["task_id"]
        connection.execute(_CHANGE_TASK, changed)
        for statement in _DELETE.values():
            connection.execute(statement, [{"this": row["this"]} for row in changed])
    return numbers


def _charge_lines(record: TaskRecord, prices: Mapping[PriceRow, int]) -> list[ChargeLine]:
    steps = {step.execution_id: step.step for step in record.steps}
    return [line_of(charge, steps.get(charge.execution_id, 0), prices[price_row(charge)]) for charge in record.charges]
