"""Maps the journal's rows to `CallRecord` and back, and marks them when a task gets a new run."""

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
    """The call in a row of `model_calls`. Impossible token counts are read as not reported."""
    return _CALLS.read(row, usage=usage_of(row))


def call_row(call: CallRecord) -> dict[str, Any]:
    """The row of a call, without its answer."""
    names = [column.name for column in MODEL_CALLS.c if column.name not in (*USAGE_COLUMNS, *_MAY_BE_NULL, "answer")]
    row = {name: getattr(call, name) for name in names}
    row |= usage_columns(call.usage)
    row |= {name: getattr(call, name) or None for name in _MAY_BE_NULL}
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in row.items()}


def call_records(rows: Iterable[Mapping[Any, Any]]) -> tuple[CallRecord, ...]:
    """The calls in rows of `model_calls`, oldest first."""
    return oldest_first(map(call_record, rows))


def oldest_first(calls: Iterable[CallRecord]) -> tuple[CallRecord, ...]:
    """The calls in the order of their start."""
    return tuple(sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id)))


# Starts the error of calls whose run was rejected by a false tampering verdict; their answers may be used again.
GIVEN_UP = "the run was given up by Dapr"

_REOPEN = update(TICKETS).where(TICKETS.c.task_id == bindparam("the_task"), TICKETS.c.recorded).values(recorded=False)


def reopen_record(connection: Connection, task_id: str) -> None:
    """Makes the next sweep record the task once more, even if its record was final: a worker or sidecar that was frozen
    may still report on its part after the task has ended."""
    run(connection, _REOPEN, {"the_task": task_id})


def mark_calls_wasted(connection: Connection, task_id: str, why: str) -> int:
    """Marks the task's settled and started model calls as interrupted, so that they count as wasted: a new run has
    other execution ids and does not use their answers, unless the old run was rejected (`Journal`). Returns the number
    of calls."""
    paid = MODEL_CALLS.c.state.in_((CallState.SETTLED, CallState.STARTED))
    calls = update(MODEL_CALLS).where(MODEL_CALLS.c.task_id == task_id, paid)
    return connection.execute(calls.values(state=CallState.INTERRUPTED, error=why)).rowcount


def prepare_new_run(connection: Connection, task_id: str, why: str) -> int:
    """As `mark_calls_wasted`, and resets the task's standing to that of a new task; for use before the new run
    starts."""
    reset = {"status": TaskStatus.RUNNING.value, "stood_at": None, "standing": "{}", "caveat": "", "recorded": False}
    connection.execute(update(TICKETS).where(TICKETS.c.task_id == task_id).values(reset))
    return mark_calls_wasted(connection, task_id, why)
