"""What records are made from: Dapr's histories, the journal, a price book, and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, bindparam, select

from app.cost.book import PriceBook
from app.cost.calls import CallRecord
from app.history.model import Run
from app.ledger.calls import call_records
from app.ledger.projection import Naming, project
from app.ledger.record import TaskRecord
from app.ledger.tables import MODEL_CALLS

_CALLS = select(MODEL_CALLS).where(MODEL_CALLS.c.task_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True)
class Sources:
    """`history` reads one run and raises TaskNotFound, HistoryTampered, Unreachable; `clock` gives the time in UTC."""

    engine: Engine
    history: Callable[[str], Run]
    book: PriceBook
    naming: Naming
    clock: Callable[[], datetime]

    def calls(self, task_ids: Sequence[str]) -> Mapping[str, Sequence[CallRecord]]:
        """The model calls of each task, as the journal has them now."""
        found: dict[str, list[CallRecord]] = {task_id: [] for task_id in task_ids}
        with self.engine.connect() as connection:
            for call in call_records(connection.execute(_CALLS, {"ids": list(task_ids)}).mappings()):
                found[call.task_id].append(call)
        return found

    def record(self, run: Run, calls: Sequence[CallRecord], book: PriceBook | None = None) -> TaskRecord:
        """The record of one task, as it is now; by another book than today's if there is one."""
        return project(run, calls, book or self.book, self.naming, self.clock())
