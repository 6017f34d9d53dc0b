"""What records are made from: Dapr's histories, the journal, a price book, and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, bindparam, select

from app.cost.book import PriceBook
from app.cost.calls import CallRecord
from app.history.executions import Begun
from app.history.model import Run
from app.ledger.calls import call_records
from app.ledger.projection import Naming, project
from app.ledger.record import TaskRecord
from app.ledger.steps import Written
from app.ledger.tables import EXECUTIONS, MODEL_CALLS, WORKERS

_CALLS = select(MODEL_CALLS).where(MODEL_CALLS.c.task_id.in_(bindparam("ids", expanding=True)))
_BEGUN = (
    select(EXECUTIONS, WORKERS.c.seen_at, WORKERS.c.stopped_at)
    .join(WORKERS, WORKERS.c.worker == EXECUTIONS.c.worker, isouter=True)
    .where(EXECUTIONS.c.task_id.in_(bindparam("ids", expanding=True)))
)


@dataclass(frozen=True)
class Sources:
    """`history` reads one run and raises TaskNotFound, HistoryTampered, Unreachable; `said` reads what a run says of
    itself that goes on, which its history does not hold, and raises the same; `clock` gives the time in UTC."""

    engine: Engine
    history: Callable[[str], Run]
    book: PriceBook
    naming: Naming
    clock: Callable[[], datetime]
    said: Callable[[str], str | None] = lambda _: None

    def written(self, task_ids: Sequence[str]) -> Mapping[str, Written]:
        """The model calls and executions of each task, as they are written down now."""
        calls: dict[str, list[CallRecord]] = {task_id: [] for task_id in task_ids}
        begun: dict[str, list[Begun]] = {task_id: [] for task_id in task_ids}
        with self.engine.connect() as connection:
            for call in call_records(connection.execute(_CALLS, {"ids": list(task_ids)}).mappings()):
                calls[call.task_id].append(call)
            for row in connection.execute(_BEGUN, {"ids": list(task_ids)}):
                begun[row.task_id].append(Begun(*row[1:]))
        return {task_id: Written(calls[task_id], begun[task_id]) for task_id in task_ids}

    def record(self, run: Run, written: Written, book: PriceBook | None = None) -> TaskRecord:
        """The record of one task, as it is now; by another book than today's if there is one."""
        return project(run, written, book or self.book, self.naming, self.clock())
