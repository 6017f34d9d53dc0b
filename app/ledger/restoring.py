"""From the ledger's rows back to values: charges, steps, tasks. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.cost.calls import CallRecord
from app.cost.money import amount_of
from app.cost.values import Charge
from app.history.times import Part, Span
from app.history.values import Outcome as AttemptOutcome
from app.ledger.columns import quantity
from app.ledger.prices import PriceRow
from app.ledger.record import AttemptRecord, StepRecord, TaskRecord
from app.models import AnsweredBy, Known, Outcome, Refund, TaskStatus

Values = Mapping[Any, Any]


def charge(row: Values, price: PriceRow, at: datetime) -> Charge:
    """One charge, or a sum of equal ones: `row` has what it is attributed by, `quantity` and `known`."""
    line = price.kind_of_line
    known = Known(row["known"])
    counted = None if known is Known.UNREPORTED or row["quantity"] is None else quantity(row["quantity"], line.unit)
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
        line=line,
        quantity=counted,
        unit=line.unit,
        known=known,
        unit_price=unit_price,
        amount=_amount(counted, unit_price, line.unit.per),
        list_unit_price=list_unit_price,
        list_amount=_amount(counted, list_unit_price, line.unit.per),
        currency=price.currency or None,
        price_id=price.price_id or None,
        book_digest=price.book_digest,
        mode=price.bought,
        rerun=bool(row["rerun"]),
        correction=row.get("correction", 0),
    )


def _amount(counted: Decimal | None, unit_price: Decimal | None, per: Decimal) -> Decimal | None:
    return None if counted is None or unit_price is None else amount_of(counted, unit_price, per)


def steps(rows: Iterable[Values], attempts: Iterable[Values]) -> tuple[StepRecord, ...]:
    """The steps of a task with their attempts."""
    of: dict[int, list[AttemptRecord]] = {}
    for row in attempts:
        attempt = AttemptRecord(
            row["number"], row["scheduled_at"], row["ended_at"], AttemptOutcome(row["outcome"]), row["error"]
        )
        of.setdefault(row["step"], []).append(attempt)
    return tuple(
        StepRecord(
            step=row["step"],
            execution_id=row["execution_id"],
            name=row["name"],
            stage=row["stage"],
            tool=row["tool"],
            active=timedelta(microseconds=row["active_us"]),
            writes=row["writes"],
            attempts=tuple(of.get(row["step"], ())),
            answered_by=AnsweredBy(row["answered_by"]) if row["answered_by"] else None,
        )
        for row in rows
    )


def task(
    row: Values,
    steps_of: tuple[StepRecord, ...],
    pauses: Iterable[Values],
    calls: Sequence[CallRecord],
    charges: Sequence[Charge],
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
        parts={Part(part): timedelta(microseconds=length) for part, length in json.loads(row["parts"]).items()},
        pauses=tuple(Span(Part(each["part"]), each["started_at"], each["ended_at"], each["label"]) for each in pauses),
        turns=row["turns"],
        events=row["events"],
        size=row["size"],
        steps=steps_of,
        calls=tuple(calls),
        charges=tuple(charges),
        trace_parent=row["trace_parent"],
    )


def _refund(row: Values) -> Refund | None:
    if row["refund_amount"] is None:
        return None
    return Refund(order_id=row["order_id"], amount=Decimal(row["refund_amount"]), currency=row["refund_currency"])
