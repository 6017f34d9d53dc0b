"""The daily sums of the charges: what a report adds up, kept added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.ledger.store.bulk import insert_many
from app.ledger.store.charge_lines import ChargeLine
from app.ledger.store.record_tables import DAILY_COSTS
from app.ledger.store.task_record import TaskRecord

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


class Place(NamedTuple):
    """Where a task's lines are counted. `steps`: stage, name and tool of each step, by its number."""

    tenant: str
    agent: str
    workflow: str
    outcome: str
    steps: Mapping[int, tuple[str, str, str]]

    def of(self, line: ChargeLine) -> tuple[str, ...]:
        """What a daily sum of this line is known by, next to day and price."""
        return (self.tenant, self.agent, self.workflow, self.outcome, *self.steps.get(line.key.step, _NO_STEP))


_NO_STEP = ("", "", "")


def place_of(record: TaskRecord) -> Place:
    """Where a record's lines are to be counted."""
    outcome = record.outcome.value if record.outcome else ""
    steps = {step.step: (step.stage, step.name, step.tool) for step in record.steps}
    return Place(record.tenant, record.agent, record.workflow, outcome, steps)


class DailySums:
    """What is to be added to the daily sums; negative where something was counted elsewhere before."""

    def __init__(self) -> None:
        self._sums: defaultdict[DailyKey, list[int]] = defaultdict(lambda: [0, 0])

    def count(self, place: Place, new: Iterable[ChargeLine]) -> None:
        """Counts a task's new lines."""
        for line in new:
            self._add(place.of(line), line, 1)

    def move(self, before: Place, place: Place, old: Iterable[ChargeLine]) -> None:
        """Counts lines that were counted before where they belong by now: the outcome is known at the end only, and a
        step's number may turn out to be another one's."""
        for line in old:
            if before.of(line) != place.of(line):
                self._add(before.of(line), line, -1)
                self._add(place.of(line), line, 1)

    def write(self, connection: Connection) -> None:
        """Adds them, in the order of their keys: whoever else adds at the same time does so in the same order."""
        rows = [
            {**key._asdict(), "quantity": quantity, "charges": charges}
            for key, (quantity, charges) in sorted(self._sums.items())
            if quantity or charges
        ]
        insert_many(connection, _ADD[connection.dialect.name], rows)

    def _add(self, place: tuple[str, ...], line: ChargeLine, sign: int) -> None:
        day = (line.at - _EPOCH) // _DAY
        sums = self._sums[DailyKey._make((day, *place, line.price_no, line.known, line.key.rerun))]
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
