"""A ledger under test: saves records as the projector does, and reads sums as reports do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, insert, select

from app.domain.models import CallState
from app.finance.rollup import Dimension, Rollup, rollup
from app.ledger.reading.queries import LedgerQueries
from app.ledger.reading.summing import disagreements
from app.ledger.recording.projection import Naming, Written, project
from app.ledger.recording.saving import save
from app.ledger.store.charge_rows import Prices
from app.ledger.store.tables import METADATA, MODEL_CALLS, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.pricing.book import PriceBook
from app.pricing.charge_types import CallRecord, Charge
from app.pricing.formula import effective_charges
from app.workflow.activities import STAGE_OF
from tests.ledger.stories import Snapshot
from tests.pricing.makers import agreement
from tests.pricing.makers import price_book as book_of
from tests.records import price_book

NAMING = Naming(stage_of=STAGE_OF, parked_at="resume")
# Priced in dollars, in euros, and not at all.
MODELS = ("model-a", "model-b", "model-c")
_NOT_OURS = frozenset({"usage", "model", "finish_reason", "error"})


def two_currencies(factor: int = 1) -> PriceBook:
    """A book for `MODELS`; another factor is another book."""
    dollars, euros = (
        {name: str(Decimal(price) * factor) for name, price in prices.items()}
        for prices in ({"input": "2", "cached_input": "0.50", "output": "8"}, {"input": "0.123457", "output": "3.1"})
    )
    return book_of(
        agreement(id="dollars", model="model-a", per_million_tokens=dollars),
        agreement(id="euros", model="model-b", per_million_tokens=euros, currency="EUR", discount_percent="7.5"),
    )


def projected(known: Snapshot, book: PriceBook | None = None, naming: Naming = NAMING) -> TaskRecord:
    """The record of a snapshot."""
    return project(known.run, Written(known.calls), book or price_book(), naming, known.moment)


class Ledger:
    """An open ledger with helpers for tests."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prices = Prices(engine)
        self.records = LedgerQueries(engine)

    def save(self, *records: TaskRecord) -> frozenset[str]:
        """Saves records in one transaction."""
        numbers = self.prices.numbers(charge for record in records for charge in record.charges)
        with self.engine.begin() as connection:
            return save(connection, records, numbers)

    def keep(self, known: Snapshot, book: PriceBook | None = None, naming: Naming = NAMING) -> TaskRecord:
        """Writes the journal's rows and saves the record."""
        self.journal(known.calls)
        record = projected(known, book, naming)
        self.save(record)
        return record

    def journal(self, calls: Sequence[CallRecord]) -> None:
        """Writes journal rows; rows with the same call id are replaced."""
        with self.engine.begin() as connection:
            write_journal(connection, calls)

    def tickets(self, *task_ids: str, started: bool = True) -> None:
        """Writes tickets for these tasks."""
        with self.engine.begin() as connection:
            write_tickets(connection, task_ids, started)

    def recorded(self) -> set[str]:
        """The tasks whose record is final."""
        with self.engine.connect() as connection:
            return set(connection.execute(select(TICKETS.c.task_id).where(TICKETS.c.recorded)).scalars())

    def content(self) -> Mapping[str, Sequence[Any]]:
        """Every row of every table."""
        with self.engine.connect() as connection:
            return {name: _rows(connection, table) for name, table in METADATA.tables.items()}

    def charges_of(self, task_id: str) -> tuple[Charge, ...]:
        """A task's charges after all corrections."""
        return effective_charges(self.records.record(task_id).charges)

    def check(self) -> None:
        """Asserts that the daily sums agree with the charges."""
        with self.engine.connect() as connection:
            assert list(disagreements(connection)) == []


def _rows(connection: Connection, table: Table) -> Sequence[Any]:
    return sorted(map(tuple, connection.execute(select(table))), key=repr)


def write_journal(connection: Connection, calls: Sequence[CallRecord]) -> None:
    """Writes journal rows; rows with the same call id are replaced."""
    if calls:
        connection.execute(delete(MODEL_CALLS).where(MODEL_CALLS.c.call_id.in_([call.call_id for call in calls])))
        connection.execute(insert(MODEL_CALLS), [call_row(call) for call in calls])


def call_row(call: CallRecord) -> dict[str, Any]:
    """A journal row as the gateway writes it."""
    names = [name for name in CallRecord.__dataclass_fields__ if name not in _NOT_OURS]
    usage = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    row: dict[str, Any] = {name: getattr(call, name) for name in names}
    row |= {name: getattr(call.usage, name) for name in usage} | {"usage_basis": call.usage.basis.value}
    row |= {name: getattr(call, name) or None for name in ("model", "finish_reason", "error")}
    return row | {"state": call.state.value, "answer": None}


def write_tickets(connection: Connection, task_ids: Iterable[str], started: bool = True) -> None:
    """Writes tickets; `started`: whether Dapr has their tasks."""
    row = {"customer_id": "C-1", "order_id": None, "digest": "0" * 64, "subject": "", "text": "", "recorded": False}
    rows = [
        row
        | {"task_id": each, "tenant": each.partition(":")[0], "ticket_id": each.partition(":")[2], "started": started}
        | {"received_at": datetime(2026, 11, 22, tzinfo=UTC)}
        for each in task_ids
    ]
    connection.execute(insert(TICKETS), rows)


def by_id(charges: Iterable[Charge]) -> dict[str, Charge]:
    """Charges by id. Asserts that no id occurs twice."""
    found = list(charges)
    named = {charge.id: charge for charge in found}
    assert len(named) == len(found)
    return named


def sums_of(charges: Iterable[Charge], by: Sequence[Dimension] = ()) -> Rollup:
    """The sums that a report must show for these charges, after all corrections."""
    return rollup(effective_charges(charges), by)


def between(charges: Iterable[Charge], since: date | None, until: date | None) -> list[Charge]:
    """The charges of these days."""
    return [
        charge
        for charge in charges
        if (since is None or charge.at.date() >= since) and (until is None or charge.at.date() < until)
    ]


def is_over(call: CallRecord) -> bool:
    """Whether a call may be charged."""
    return call.state is not CallState.STARTED
