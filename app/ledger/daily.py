"""The daily sums of the charges: what a report adds up, kept added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.ledger.lines import Line
from app.ledger.record import StepRecord, TaskRecord
from app.ledger.record_tables import DAILY_COSTS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_FIRST = date(1970, 1, 1)


class DailyKey(NamedTuple):
    """What a daily sum is a sum of."""

    day: int
    tenant: str
    agent: str
    workflow: str
    outcome: str
    stage: str
    step: str
    tool: str
    price_no: int
    known: str
    rerun: bool


class DailySums:
    """What is to be added to the daily sums; negative where something was counted elsewhere before."""

    def __init__(self) -> None:
        self._sums: defaultdict[DailyKey, list[int]] = defaultdict(lambda: [0, 0])

    def count(self, record: TaskRecord, old: Iterable[Line], new: Iterable[Line], old_outcome: str | None) -> None:
        """Counts a task's new lines; its old ones move if it had another outcome when they were counted."""
        outcome = record.outcome.value if record.outcome else ""
        steps = {step.step: step for step in record.steps}
        if old_outcome is not None and old_outcome != outcome:
            for line in old:
                self._add(record, steps.get(line.key.step), line, old_outcome, -1)
                self._add(record, steps.get(line.key.step), line, outcome, 1)
        for line in new:
            self._add(record, steps.get(line.key.step), line, outcome, 1)

    def write(self, connection: Connection) -> None:
        """Adds them, in the order of their keys: whoever else adds at the same time does so in the same order."""
        rows = [
            {**key._asdict(), "quantity": quantity, "charges": charges}
            for key, (quantity, charges) in sorted(self._sums.items())
            if quantity or charges
        ]
        if rows:
            connection.execute(_ADD[connection.dialect.name], rows)

    def _add(self, record: TaskRecord, step: StepRecord | None, line: Line, outcome: str, sign: int) -> None:
        sums = self._sums[
            DailyKey(
                (line.at - _EPOCH) // _DAY,
                record.tenant,
                record.agent,
                record.workflow,
                outcome,
                step.stage if step else "",
                step.name if step else "",
                step.tool if step else "",
                line.price_no,
                line.known,
                line.key.rerun,
            )
        ]
        sums[0] += sign * (line.quantity or 0)
        sums[1] += sign * line.times


def day_number(day: date) -> int:
    """A day as the table counts them."""
    return (day - _FIRST).days


def day_of(number: int) -> datetime:
    """The first moment of a day, in UTC."""
    return _EPOCH + number * _DAY


def _upsert(insert: type[sqlite.Insert] | type[postgresql.Insert]) -> sqlite.Insert | postgresql.Insert:
    statement = insert(DAILY_COSTS)
    grown = {name: DAILY_COSTS.c[name] + statement.excluded[name] for name in ("quantity", "charges")}
    return statement.on_conflict_do_update(index_elements=list(DAILY_COSTS.primary_key.columns), set_=grown)


# Built once: composing a statement costs more than running it.
_ADD = {"sqlite": _upsert(sqlite.Insert), "postgresql": _upsert(postgresql.Insert)}
