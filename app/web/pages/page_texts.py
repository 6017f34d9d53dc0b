"""Texts for the parts of a task's time, and table cells for money."""

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
    TimePart.TIMER: "timers",
    TimePart.IDLE: "between steps",
}
_WAITS = {"decision": "waiting for a person's decision", "resume": "parked until resumed"}


def part_text(part: TimePart) -> str:
    """What the task did in this part of its time."""
    return _PARTS[part]


def pause_text(span: Span) -> str:
    """What the task waited for in this pause."""
    if span.part is TimePart.WAITING and span.label:
        return _WAITS.get(span.label, f"waiting for {span.label}")
    return _PARTS[span.part]


def record_digits(record: TaskRecord) -> Digits:
    """The decimal places for the amounts of a task's page; the same as for `refund-agent record`."""
    parts = [record.charges_of(step) for step in record.steps]
    parts += [charges_of_call(record, call) for call in record.calls]
    return digits_for(amounts(*(rollup(charges).total for charges in (record.charges, *parts))))


def list_digits(records: Iterable[TaskRecord]) -> Digits:
    """The decimal places for the costs in the list of tasks."""
    return digits_for(amounts(*(rollup(record.charges).total for record in records)))


@dataclass(frozen=True)
class MoneyTexts:
    """The money of a table cell: one line per currency, marked if estimated or incomplete; `exact` has all digits."""

    lines: tuple[str, ...]
    exact: str


def money_cell(charges: Iterable[Charge], digits: Digits) -> MoneyTexts:
    """The sum of the charges. The cell is empty without charges, and `?` if no charge has a known amount."""
    group = rollup(charges).total
    exact = [f"{money.contracted_cost:f} {money.currency}" for money in group.money]
    if incomplete(group):
        exact.append(f"{group.unpriced} lines without a price, {group.unreported} without a quantity")
    return MoneyTexts(money_of(group, digits), "; ".join(exact))
