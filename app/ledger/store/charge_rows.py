"""Maps charges to the ledger's rows and back: numbered prices, charge lines, and the daily sums that reports read."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.models import UsageBasis
from app.domain.money import amount_of, plain
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import DAILY_COSTS, PRICES, quantity, whole
from app.ledger.store.task_record import TaskRecord
from app.ledger.store.writer import insert_many
from app.pricing.charge_types import Charge, Meter, Mode


class PriceRow(NamedTuple):
    """The price of charges: a line of a price book, with the provider and model that it was applied to. Unpriced
    charges have empty texts."""

    meter: str
    book_digest: str
    price_id: str
    mode: str
    currency: str
    contracted_unit_price: str
    list_unit_price: str
    provider: str
    component: str
    model: str


def price_row(charge: Charge) -> PriceRow:
    """The price of a charge."""
    return PriceRow(
        charge.meter.value,
        charge.book_digest,
        charge.price_id or "",
        charge.mode.value,
        charge.currency or "",
        _text(charge.contracted_unit_price),
        _text(charge.list_unit_price),
        charge.provider,
        charge.component,
        charge.model,
    )


class Prices:
    """The numbers of prices; adds missing prices to the table. Thread-safe. Adding is a separate transaction, so call
    `numbers` before a writing transaction and never inside it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers: dict[PriceRow, int] = {}
        self._rows: dict[int, PriceRow] = {}
        self._lock = threading.Lock()

    def numbers(self, charges: Iterable[Charge]) -> Mapping[PriceRow, int]:
        """The numbers of all known prices, including those of these charges."""
        with self._lock:
            missing = {price_row(charge) for charge in charges} - self._numbers.keys()
            if missing:
                self._load()
                missing -= self._numbers.keys()
            if missing:
                self._add(missing)
                self._load()
            return self._numbers

    def row(self, number: int, connection: Connection) -> PriceRow:
        """The price with this number. A price is committed before its first charge, so the reader of a charge always
        finds it. The reader's own connection is used: waiting for a second one could exhaust the pool."""
        if number not in self._rows:
            with self._lock:
                self._read(connection)
        return self._rows[number]

    def _add(self, missing: Iterable[PriceRow]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert_or_ignore(connection, PRICES), [row._asdict() for row in sorted(missing)])

    def _load(self) -> None:
        with self._engine.connect() as connection:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        for number, *values in connection.execute(select(PRICES.c.price_no, *_COLUMNS)):
            row = PriceRow(*values)
            self._numbers[row], self._rows[number] = number, row


_COLUMNS = tuple(PRICES.c[name] for name in PriceRow._fields)


@lru_cache(maxsize=1024)  # few prices, many charges; equal prices have equal texts
def _text(price: Decimal | None) -> str:
    return "" if price is None else plain(price)


class Key(NamedTuple):
    """Identifies a line within its task, apart from corrections. `step` 0: the workflow itself. `turn` 0: no model
    call."""

    step: int
    turn: int
    number: int
    meter: str
    wasted: bool


class ChargeLine(NamedTuple):
    """A row of `charges`. `consumed_quantity`: see `tables.whole`; None if not known. `model`: of the price."""

    key: Key
    correction: int
    price_no: int
    consumed_quantity: int | None
    usage_basis: str
    at: datetime
    model: str

    @property
    def times(self) -> int:
        """1 for a line that charges, -1 for a correction that takes one back."""
        return -1 if self.correction % 2 else 1

    def row(self, task_no: int) -> dict[str, Any]:
        """The row of this line in `charges`."""
        return {
            "task_no": task_no,
            **self.key._asdict(),
            "correction": self.correction,
            "price_no": self.price_no,
            "consumed_quantity": self.consumed_quantity,
            "usage_basis": self.usage_basis,
            "at": self.at,
        }


def line_of(charge: Charge, step: int, price_no: int) -> ChargeLine:
    """The line of a charge. `step`: number of its step, 0 for the workflow itself. Raises ValueError if the quantity is
    finer than its unit is stored."""
    return ChargeLine(
        Key(step, charge.turn, charge.number, charge.meter.value, charge.wasted),
        charge.correction,
        price_no,
        None if charge.consumed_quantity is None else whole(charge.consumed_quantity, charge.unit),
        charge.usage_basis.value,
        charge.at,
        charge.model,
    )


def charge_of(row: Mapping[Any, Any], price: PriceRow, at: datetime) -> Charge:
    """A charge, or the sum of charges with the same price. `row` has quantity, usage basis, `wasted`, and those of the
    attributes (task, tenant, stage, ...) that all of them share."""
    meter, usage_basis = Meter(price.meter), UsageBasis(row["usage_basis"])
    consumed = (
        None
        if usage_basis is UsageBasis.UNREPORTED or row["consumed_quantity"] is None
        else quantity(row["consumed_quantity"], meter.unit)
    )
    contracted_unit_price, list_unit_price = (
        Decimal(text) if text else None for text in (price.contracted_unit_price, price.list_unit_price)
    )
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
        kind=meter.kind,
        meter=meter,
        consumed_quantity=consumed,
        unit=meter.unit,
        usage_basis=usage_basis,
        contracted_unit_price=contracted_unit_price,
        contracted_cost=_cost(consumed, contracted_unit_price, meter.unit.per),
        list_unit_price=list_unit_price,
        list_cost=_cost(consumed, list_unit_price, meter.unit.per),
        currency=price.currency or None,
        price_id=price.price_id or None,
        book_digest=price.book_digest,
        mode=Mode(price.mode),
        wasted=bool(row["wasted"]),
        correction=row.get("correction", 0),
    )


def _cost(consumed: Decimal | None, unit_price: Decimal | None, per: Decimal) -> Decimal | None:
    return None if consumed is None or unit_price is None else amount_of(consumed, unit_price, per)


def corrected(old: Iterable[ChargeLine], wanted: Iterable[ChargeLine]) -> Iterator[ChargeLine]:
    """The lines to add to `old` so that `wanted` are the valid lines. A billed line keeps its price unless quantity,
    usage basis or model was wrong; the model of a call may only become known through a later call."""
    last: dict[Key, ChargeLine] = {}
    for line in old:
        if line.key not in last or line.correction > last[line.key].correction:
            last[line.key] = line
    new = {line.key: line for line in wanted}
    for key, line in last.items():
        if line.times > 0 and (key not in new or _differ(line, new[key])):
            yield _take_back(line)
    for key, line in new.items():
        before = last.get(key)
        if before is None:
            yield line
        elif before.times < 0:
            yield line._replace(correction=before.correction + 1)
        elif _differ(before, line):
            yield line._replace(correction=before.correction + 2)


def _differ(old: ChargeLine, new: ChargeLine) -> bool:
    return (old.consumed_quantity, old.usage_basis, old.model) != (new.consumed_quantity, new.usage_basis, new.model)


def _take_back(line: ChargeLine) -> ChargeLine:
    return line._replace(
        correction=line.correction + 1,
        consumed_quantity=None if line.consumed_quantity is None else -line.consumed_quantity,
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_FIRST = date(1970, 1, 1)


class DailyKey(NamedTuple):
    """The key of a daily sum. `day`: days since 1970-01-01, UTC."""

    day: int
    tenant: str
    agent: str
    workflow: str
    outcome: str
    stage: str
    step: str
    tool: str
    price_no: int
    usage_basis: str
    wasted: bool


class Place(NamedTuple):
    """The attributes under which a task's lines are summed. `steps`: stage, name and tool of each step, by number."""

    tenant: str
    agent: str
    workflow: str
    outcome: str
    steps: Mapping[int, tuple[str, str, str]]

    def of(self, line: ChargeLine) -> tuple[str, ...]:
        """The part of this line's `DailyKey` between day and price."""
        return (self.tenant, self.agent, self.workflow, self.outcome, *self.steps.get(line.key.step, _NO_STEP))


_NO_STEP = ("", "", "")


def place_of(record: TaskRecord) -> Place:
    """The attributes under which a record's lines are summed."""
    outcome = record.outcome.value if record.outcome else ""
    steps = {step.step: (step.stage, step.name, step.tool) for step in record.steps}
    return Place(record.tenant, record.agent, record.workflow, outcome, steps)


class DailySums:
    """Collects changes of the daily sums. A change is negative if a line moves to another sum."""

    def __init__(self) -> None:
        self._sums: defaultdict[DailyKey, list[int]] = defaultdict(lambda: [0, 0])

    def count(self, place: Place, new: Iterable[ChargeLine]) -> None:
        """Adds a task's new lines."""
        for line in new:
            self._add(place.of(line), line, 1)

    def move(self, before: Place, place: Place, old: Iterable[ChargeLine]) -> None:
        """Moves saved lines from the sums of `before` to those of `place`: the outcome becomes known at the end only,
        and a step's number may change."""
        for line in old:
            if before.of(line) != place.of(line):
                self._add(before.of(line), line, -1)
                self._add(place.of(line), line, 1)

    def write(self, connection: Connection) -> None:
        """Writes the changes, in the order of their keys, which rules out deadlocks with other processes."""
        rows = [
            {**key._asdict(), "consumed_quantity": consumed, "charges": charges}
            for key, (consumed, charges) in sorted(self._sums.items())
            if consumed or charges
        ]
        insert_many(connection, _ADD[connection.dialect.name], rows)

    def _add(self, place: tuple[str, ...], line: ChargeLine, sign: int) -> None:
        day = (line.at - _EPOCH) // _DAY
        sums = self._sums[DailyKey._make((day, *place, line.price_no, line.usage_basis, line.key.wasted))]
        sums[0] += sign * (line.consumed_quantity or 0)
        sums[1] += sign * line.times


def day_number(day: date) -> int:
    """The number of days since 1970-01-01."""
    return (day - _FIRST).days


def day_of(number: int) -> datetime:
    """The first moment (UTC) of the day with this number."""
    return _EPOCH + number * _DAY


def _upsert(insert: type[sqlite.Insert] | type[postgresql.Insert]) -> sqlite.Insert | postgresql.Insert:
    statement = insert(DAILY_COSTS)
    sums = {name: DAILY_COSTS.c[name] + statement.excluded[name] for name in ("consumed_quantity", "charges")}
    return statement.on_conflict_do_update(index_elements=list(DAILY_COSTS.primary_key.columns), set_=sums)


# Built once: composing a statement costs more than running it.
_ADD = {"sqlite": _upsert(sqlite.Insert), "postgresql": _upsert(postgresql.Insert)}
