"""The pages' words for the parts of a task's time, and its money as cells with a hint. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.dapr.history.times import Span, TimePart
from app.domain.formatting import Digits, digits_for
from app.finance.cost_texts import amounts, incomplete, money_of
from app.finance.rollup import rollup
from app.ledger.reading.record_schemas import charges_of_call
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import Charge

_PARTS = {
    TimePart.ACTIVE: "working",
    TimePart.RESTART: "waiting for the restart",
    TimePart.SUSPENDED: "paused by a person",
    TimePart.CHILDREN: "other workflows",
    TimePart.WAITING: "waiting for a person",
    TimePart.BACK_OFF: "back-off before a retry",
    TimePart.TIMER: "timers of its own",
    TimePart.IDLE: "between steps",
}
_WAITS = {"decision": "waiting for a person's decision", "resume": "parked until resumed"}


def part(which: TimePart) -> str:
    """What a task was doing."""
    return _PARTS[which]


def pause(span: Span) -> str:
    """What a task was paused for."""
    if span.part is TimePart.WAITING and span.label:
        return _WAITS.get(span.label, f"waiting for {span.label}")
    return _PARTS[span.part]


def record_digits(record: TaskRecord) -> Digits:
    """To how many places the page of a task shows its amounts: as `refund-agent record` does."""
    parts = [record.charges_of(step) for step in record.steps]
    parts += [charges_of_call(record, call) for call in record.calls]
    return digits_for(amounts(*(rollup(charges).total for charges in (record.charges, *parts))))


def list_digits(records: Iterable[TaskRecord]) -> Digits:
    """To how many places a list of tasks shows what each cost."""
    return digits_for(amounts(*(rollup(record.charges).total for record in records)))


@dataclass(frozen=True)
class MoneyTexts:
    """Money of some charges, for one cell: a line a currency, with marks; `exact` holds every digit, for a hint."""

    lines: tuple[str, ...]
    exact: str


def money_cell(charges: Iterable[Charge], digits: Digits) -> MoneyTexts:
    """What the charges come to. Without any there is nothing to say; with none that is known there is a `?`."""
    group = rollup(charges).total
    exact = [f"{money.contracted_cost:f} {money.currency}" for money in group.money]
    if incomplete(group):
        exact.append(f"{group.unpriced} lines without a price, {group.unreported} without a quantity")
    return MoneyTexts(money_of(group, digits), "; ".join(exact))
