"""From the ledger's rows back to values: charges, steps, tasks. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.dapr.history.causes import Cause
from app.dapr.history.executions import Execution, ExecutionOutcome
from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.models import AnsweredBy, DecisionView, Outcome, Refund, TaskStatus, UsageBasis
from app.domain.money import amount_of
from app.ledger.store.charge_rows import PriceRow
from app.ledger.store.tables import quantity
from app.ledger.store.task_record import AttemptRecord, FailureKind, FailureRecord, StepRecord, TaskRecord
from app.pricing.charge_types import CallRecord, Charge

Values = Mapping[Any, Any]


def charge(row: Values, price: PriceRow, at: datetime) -> Charge:
    """One charge, or a sum of equal ones: `row` has what it is attributed by, `quantity` and `known`."""
    line = price.kind_of_line
    known = UsageBasis(row["usage_basis"])
    counted = (
        None
        if known is UsageBasis.UNREPORTED or row["consumed_quantity"] is None
        else quantity(row["consumed_quantity"], line.unit)
    )
    unit_price, list_unit_price = price.money
    return Charge(
        task_id=row.get("task_id", ""),
        tenant=row.get("tenant", ""),
        agent=row.get("agent", ""),
        workflow=row.get("workflow", ""),
        at=at,
        stage=row.get("stage") or "",
        step=row.get("step_name") or "",
        tool=row.get("tool") or "",
        execution_id=row.get("execution_id") or "",
        turn=row.get("turn", 0),
        number=row.get("number", 0),
        model=price.model,
        provider=price.provider,
        component=price.component,
        outcome=row.get("outcome", ""),
        kind=line.kind,
        meter=line,
        consumed_quantity=counted,
        unit=line.unit,
        usage_basis=known,
        contracted_unit_price=unit_price,
        contracted_cost=_amount(counted, unit_price, line.unit.per),
        list_unit_price=list_unit_price,
        list_cost=_amount(counted, list_unit_price, line.unit.per),
        currency=price.currency or None,
        price_id=price.price_id or None,
        book_digest=price.book_digest,
        mode=price.bought,
        wasted=bool(row["wasted"]),
        correction=row.get("correction", 0),
    )


def _amount(counted: Decimal | None, unit_price: Decimal | None, per: Decimal) -> Decimal | None:
    return None if counted is None or unit_price is None else amount_of(counted, unit_price, per)


def failures(rows: Iterable[Values]) -> tuple[FailureRecord, ...]:
    """The failures of a task."""
    return tuple(
        FailureRecord(
            step=row["step"],
            attempt=row["attempt"],
            execution=row["execution"],
            at=row["at"],
            resumed_at=row["resumed_at"],
            kind=FailureKind(row["kind"]),
            cause=Cause(row["cause"]),
            worker=row["worker"],
        )
        for row in rows
    )


def steps(
    rows: Iterable[Values], attempts: Iterable[Values], begun: Iterable[Values], failed: Iterable[FailureRecord]
) -> tuple[StepRecord, ...]:
    """The steps of a task with their attempts, and those with their executions."""
    of: dict[int, list[Values]] = {}
    for row in attempts:
        of.setdefault(row["step"], []).append(row)
    known = tuple(begun)
    return tuple(
        StepRecord(
            step=row["step"],
            execution_id=row["execution_id"],
            name=row["name"],
            stage=row["stage"],
            tool=row["tool"],
            active=timedelta(microseconds=row["active_us"]),
            lost=timedelta(microseconds=row["lost_us"]),
            writes=row["writes"],
            attempts=tuple(
                _attempt(
                    execution,
                    [other for other in known if _is_of(other, row, execution)],
                    {f.execution: f for f in failed if (f.step, f.attempt) == (execution["step"], execution["number"])},
                )
                for execution in of.get(row["step"], ())
            ),
            answered_by=AnsweredBy(row["answered_by"]) if row["answered_by"] else None,
        )
        for row in rows
    )


def _is_of(begun: Values, step: Values, attempt: Values) -> bool:
    return (begun["execution_id"], begun["event_id"]) == (step["execution_id"], attempt["event_id"])


def _attempt(row: Values, begun: Sequence[Values], failed: Mapping[int, FailureRecord]) -> AttemptRecord:
    outcome, ended_at = AttemptOutcome(row["outcome"]), row["ended_at"]
    lost = [number for number, failure in failed.items() if failure.kind is FailureKind.INTERRUPTED]
    last = next((execution["number"] for execution in begun if execution["number"] not in lost), None)
    executions = tuple(
        _execution(execution, failed.get(execution["number"]), outcome, ended_at, is_last=execution["number"] == last)
        for execution in begun
    )
    return AttemptRecord(
        row["number"], row["scheduled_at"], ended_at, outcome, row["error"], row["event_id"], executions
    )


def _execution(
    row: Values, failure: FailureRecord | None, outcome: AttemptOutcome, ended_at: datetime | None, *, is_last: bool
) -> Execution:
    """As it was when the task was recorded: what was lost stands among the failures, the rest follows."""
    begun = (row["number"], row["worker"], row["started_at"])
    cause = failure.cause if failure else None
    if failure is not None and failure.kind is FailureKind.INTERRUPTED:
        return Execution(*begun, failure.at, ExecutionOutcome.INTERRUPTED, cause)
    if not is_last:
        return Execution(*begun, None, ExecutionOutcome.REPEATED)
    if ended_at is None:
        return Execution(*begun, None, ExecutionOutcome.OPEN)
    return Execution(*begun, ended_at, ExecutionOutcome(outcome.value), cause)


def task(
    row: Values,
    steps_of: tuple[StepRecord, ...],
    failed: tuple[FailureRecord, ...],
    pauses: Iterable[Values],
    calls: Sequence[CallRecord],
    charges: Sequence[Charge],
    decisions: tuple[DecisionView, ...],
) -> TaskRecord:
    """The record of a task."""
    return TaskRecord(
        task_id=row["task_id"],
        tenant=row["tenant"],
        agent=row["agent"],
        workflow=row["workflow"],
        version=row["version"],
        execution_id=row["execution_id"],
        rerun_of=row["rerun_of"],
        status=TaskStatus(row["status"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        category=row["category"],
        refund=_refund(row),
        refund_id=row["refund_id"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        projected_at=row["projected_at"],
        parts={TimePart(part): timedelta(microseconds=length) for part, length in json.loads(row["parts"]).items()},
        pauses=tuple(
            Span(TimePart(pause["part"]), pause["started_at"], pause["ended_at"], pause["label"]) for pause in pauses
        ),
        turns=row["turns"],
        events=row["events"],
        size=row["size"],
        steps=steps_of,
        failures=failed,
        calls=tuple(calls),
        charges=tuple(charges),
        trace_parent=row["trace_parent"],
        decisions=decisions,
    )


def _refund(row: Values) -> Refund | None:
    if row["refund_amount"] is None:
        return None
    return Refund(order_id=row["order_id"], amount=Decimal(row["refund_amount"]), currency=row["refund_currency"])
