"""A charge as the ledger keeps it: a line under a short key, and how lines are corrected. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from app.ledger.store.columns import whole
from app.pricing.charge_types import Charge


class Key(NamedTuple):
    """What a line is for, within its task. `step` 0 is the workflow itself, `turn` 0 no model call's."""

    step: int
    turn: int
    number: int
    line: str
    rerun: bool


class ChargeLine(NamedTuple):
    """One line. `quantity` is in whole parts of its unit, None when it is not known. `model` is the price's."""

    key: Key
    correction: int
    price_no: int
    quantity: int | None
    known: str
    at: datetime
    model: str

    @property
    def times(self) -> int:
        """What it counts for: a line that takes another one back counts against it."""
        return -1 if self.correction % 2 else 1

    def row(self, task_no: int) -> dict[str, Any]:
        """As the table has it."""
        return {
            "task_no": task_no,
            **self.key._asdict(),
            "correction": self.correction,
            "price_no": self.price_no,
            "quantity": self.quantity,
            "known": self.known,
            "at": self.at,
        }


def line_of(charge: Charge, step: int, price_no: int) -> ChargeLine:
    """A charge as a line of its task's step."""
    return ChargeLine(
        Key(step, charge.turn, charge.number, charge.line.value, charge.rerun),
        charge.correction,
        price_no,
        None if charge.quantity is None else whole(charge.quantity, charge.unit),
        charge.known.value,
        charge.at,
        charge.model,
    )


def corrected(old: Iterable[ChargeLine], wanted: Iterable[ChargeLine]) -> Iterator[ChargeLine]:
    """The lines to add so that what stands is what is wanted. What was billed keeps its price as long as its quantity,
    how that is known, and the model are right: which model a call was put to may only be known after another call."""
    last: dict[Key, ChargeLine] = {}
    for line in old:
        if line.key not in last or line.correction > last[line.key].correction:
            last[line.key] = line
    new = {line.key: line for line in wanted}
    for key, line in last.items():
        if line.times > 0 and (key not in new or _differ(line, new[key])):
            yield _back(line)
    for key, line in new.items():
        before = last.get(key)
        if before is None:
            yield line
        elif before.times < 0:
            yield line._replace(correction=before.correction + 1)
        elif _differ(before, line):
            yield line._replace(correction=before.correction + 2)


def _differ(old: ChargeLine, new: ChargeLine) -> bool:
    return (old.quantity, old.known, old.model) != (new.quantity, new.known, new.model)


def _back(line: ChargeLine) -> ChargeLine:
    return line._replace(correction=line.correction + 1, quantity=None if line.quantity is None else -line.quantity)
