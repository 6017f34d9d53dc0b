"""The journal's rows as values, and what becomes of them when another run begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, update

from app.domain.models import CallState, TaskStatus
from app.ledger.store.record_rows import RowReader
from app.ledger.store.tables import MODEL_CALLS, TICKETS
from app.ledger.store.writer import run
from app.pricing.charge_types import USAGE_COLUMNS, CallRecord, usage_columns, usage_of

_MAY_BE_NULL = ("model", "finish_reason", "error")


_CALLS = RowReader(MODEL_CALLS, CallRecord)


def call_record(row: Mapping[Any, Any]) -> CallRecord:
    """The call in a row of `model_calls`. Impossible token counts in it are read as not reported."""
    return _CALLS.read(row, usage=usage_of(row))


def call_row(call: CallRecord) -> dict[str, Any]:
    """The row of a call whose answer is not kept."""
    names = [column.name for column in MODEL_CALLS.c if column.name not in (*USAGE_COLUMNS, *_MAY_BE_NULL, "answer")]
    row = {name: getattr(call, name) for name in names}
    row |= usage_columns(call.usage)
    row |= {name: getattr(call, name) or None for name in _MAY_BE_NULL}
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in row.items()}


def call_records(rows: Iterable[Mapping[Any, Any]]) -> tuple[CallRecord, ...]:
    """Many of them, oldest first."""
    return oldest_first(map(call_record, rows))


def oldest_first(calls: Iterable[CallRecord]) -> tuple[CallRecord, ...]:
    """In the order in which they were begun."""
    return tuple(sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id)))


# What the ledger notes when a task's run is over for it and another one begins from its ticket, and when something
# changes that a record was made from which counted as final.

# Begins the reason of calls whose run Dapr gave up for no fault of the task's: their answers are good.
GIVEN_UP = "the run was given up by Dapr"

_LOOK_AGAIN = (
    update(TICKETS).where(TICKETS.c.task_id == bindparam("the_task"), TICKETS.c.recorded).values(recorded=False)
)


def look_again(connection: Connection, task_id: str) -> None:
    """Has the task's record made once more by the next sweep. A worker or sidecar that stood still may come back when
    its task has long ended without it, and say what became of its part."""
    run(connection, _LOOK_AGAIN, {"the_task": task_id})


def give_up_calls(connection: Connection, task_id: str, why: str) -> int:
    """Marks what the run's model calls cost as in vain: another run's steps have other names, and none is answered from
    them, unless Dapr gave the run up (`Journal`). They stay in the record. Returns how many there were."""
    paid = MODEL_CALLS.c.state.in_((CallState.SETTLED, CallState.STARTED))
    given_up = update(MODEL_CALLS).where(MODEL_CALLS.c.task_id == task_id, paid)
    return connection.execute(given_up.values(state=CallState.INTERRUPTED, error=why)).rowcount


def begin_anew(connection: Connection, task_id: str, why: str) -> int:
    """The same, and the task stands where a new one does. Comes before the new run, which then tells of itself."""
    begins = {"status": TaskStatus.RUNNING.value, "stood_at": None, "standing": "{}", "caveat": "", "recorded": False}
    connection.execute(update(TICKETS).where(TICKETS.c.task_id == task_id).values(begins))
    return give_up_calls(connection, task_id, why)
