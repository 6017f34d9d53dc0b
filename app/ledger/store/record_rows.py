"""Maps a task's record to its rows and back: tasks, steps, attempts, failures and pauses.

Writing is coded column by column, since every save writes a dozen rows per task, and a mapping generated from the
tables takes three times as long. Reading uses `RowReader`, which takes the columns from table and dataclass.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from sqlalchemy import Column, Table

from app.dapr.history.executions import Execution, ExecutionOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.models import DecisionView, Refund
from app.ledger.store.tables import ATTEMPTS, FAILURES, PAUSES, STEPS, TASKS
from app.ledger.store.task_record import AttemptRecord, FailureKind, FailureRecord, StepRecord, TaskRecord
from app.pricing.charge_types import CallRecord, Charge

Values = Mapping[Any, Any]
_MICROSECOND = timedelta(microseconds=1)


def task_row(record: TaskRecord) -> dict[str, Any]:
    """The row of `tasks`, without its number."""
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


def add_rows(rows: Mapping[Table, list[dict[str, Any]]], record: TaskRecord, task_no: int) -> None:
    """Appends the rows of a task's steps, attempts, failures and pauses to `rows`, by table."""
    for step in record.steps:
        rows[STEPS].append(
            {
                "task_no": task_no,
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
                    "task_no": task_no,
                    "step": step.step,
                    "number": attempt.number,
                    "event_id": attempt.event_id,
                    "scheduled_at": attempt.scheduled_at,
                    "ended_at": attempt.ended_at,
                    "outcome": attempt.outcome.value,
                    "error": attempt.error,
                }
            )
    for number, failure in enumerate(record.failures):
        rows[FAILURES].append(
            {
                "task_no": task_no,
                "number": number,
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
    for number, pause in enumerate(record.pauses):
        rows[PAUSES].append(
            {
                "task_no": task_no,
                "number": number,
                "part": pause.part.value,
                "label": pause.label[:64],
                "started_at": pause.started_at,
                "ended_at": pause.ended_at,
            }
        )


_Record = TypeVar("_Record")


class RowReader(Generic[_Record]):
    """Makes values of a dataclass from the rows of a table. A column with the name of a field fills it, by the field's
    type: an enum from its text (None from NULL or an empty text), a text that is NULL as an empty one, a timedelta from
    the microseconds in the column `<field>_us`."""

    def __init__(self, table: Table, record: type[_Record], *, but: Sequence[str] = ()) -> None:
        self._record = record
        types = {name: kind for name, kind in get_type_hints(record).items() if name not in but}
        columns = {column.name.removesuffix("_us"): column for column in table.columns}
        self._fields = [
            (name, columns[name].name, _converter(kind, columns[name]))
            for name, kind in types.items()
            if name in columns
        ]

    def read(self, row: Values, **others: Any) -> _Record:
        """The value of a row; `others` are the fields for which the table has no column."""
        values = {name: convert(row[column]) if convert else row[column] for name, column, convert in self._fields}
        return self._record(**values, **others)


def _converter(kind: Any, column: Column[Any]) -> Callable[[Any], Any] | None:
    """The function that converts the column's value to this type; None if no conversion is needed."""
    if kind is str and column.nullable:
        return lambda text: text or ""
    if kind is timedelta:
        return lambda length: timedelta(microseconds=length)
    kinds = (kind, *get_args(kind))
    enum = next((part for part in kinds if isinstance(part, type) and issubclass(part, StrEnum)), None)
    if enum is None or enum is kind:
        return enum
    return lambda text: enum(text) if text else None


_TASKS = RowReader(TASKS, TaskRecord, but=["parts"])
_STEPS = RowReader(STEPS, StepRecord)
_ATTEMPTS = RowReader(ATTEMPTS, AttemptRecord)
_FAILURES = RowReader(FAILURES, FailureRecord)
_PAUSES = RowReader(PAUSES, Span)


def task_of(
    row: Values,
    steps: tuple[StepRecord, ...],
    failures: tuple[FailureRecord, ...],
    pauses: Iterable[Values],
    calls: Sequence[CallRecord],
    charges: Sequence[Charge],
    decisions: tuple[DecisionView, ...],
) -> TaskRecord:
    """The record of a task from its row, the rows of its pauses, and the values read from its other rows."""
    return _TASKS.read(
        row,
        parts={TimePart(part): timedelta(microseconds=length) for part, length in json.loads(row["parts"]).items()},
        refund=_refund(row),
        pauses=tuple(map(_PAUSES.read, pauses)),
        steps=steps,
        failures=failures,
        calls=tuple(calls),
        charges=tuple(charges),
        decisions=decisions,
    )


def _refund(row: Values) -> Refund | None:
    if row["refund_amount"] is None:
        return None
    return Refund(order_id=row["order_id"], amount=Decimal(row["refund_amount"]), currency=row["refund_currency"])


def failures_of(rows: Iterable[Values]) -> tuple[FailureRecord, ...]:
    """The failures of a task."""
    return tuple(map(_FAILURES.read, rows))


def steps_of(
    steps: Iterable[Values], attempts: Iterable[Values], executions: Iterable[Values], failures: Iterable[FailureRecord]
) -> tuple[StepRecord, ...]:
    """The steps of a task with their attempts, and those with their executions."""
    attempts_of: defaultdict[int, list[Values]] = defaultdict(list)
    for row in attempts:
        attempts_of[row["step"]].append(row)
    executions_of: defaultdict[tuple[str, int], list[Values]] = defaultdict(list)
    for row in executions:
        executions_of[row["execution_id"], row["event_id"]].append(row)
    failures_of_attempt: defaultdict[tuple[int, int], dict[int, FailureRecord]] = defaultdict(dict)
    for failure in failures:
        failures_of_attempt[failure.step, failure.attempt][failure.execution] = failure
    return tuple(
        _STEPS.read(
            step,
            attempts=tuple(
                _attempt(
                    attempt,
                    executions_of[step["execution_id"], attempt["event_id"]],
                    failures_of_attempt[step["step"], attempt["number"]],
                )
                for attempt in attempts_of[step["step"]]
            ),
        )
        for step in steps
    )


def _attempt(row: Values, executions: Sequence[Values], failures: Mapping[int, FailureRecord]) -> AttemptRecord:
    """An attempt with its executions; `failures` by the number of the execution."""
    attempt = _ATTEMPTS.read(row)
    lost = {number for number, failure in failures.items() if failure.kind is FailureKind.INTERRUPTED}
    last = next((execution["number"] for execution in executions if execution["number"] not in lost), None)
    return replace(
        attempt,
        executions=tuple(
            _execution(execution, failures.get(execution["number"]), attempt, is_last=execution["number"] == last)
            for execution in executions
        ),
    )


def _execution(row: Values, failure: FailureRecord | None, attempt: AttemptRecord, *, is_last: bool) -> Execution:
    """An execution as of the time when the task was recorded. A lost one ended with its failure, the last one with its
    attempt."""
    started = (row["number"], row["worker"], row["started_at"])
    cause = failure.cause if failure else None
    if failure is not None and failure.kind is FailureKind.INTERRUPTED:
        return Execution(*started, failure.at, ExecutionOutcome.INTERRUPTED, cause)
    if not is_last:
        return Execution(*started, None, ExecutionOutcome.REPEATED)
    if attempt.ended_at is None:
        return Execution(*started, None, ExecutionOutcome.OPEN)
    return Execution(*started, attempt.ended_at, ExecutionOutcome(attempt.outcome.value), cause)
