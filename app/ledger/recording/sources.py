"""What records are made from: Dapr's histories, the journal, a price book, and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, bindparam, select

from app.dapr.history.executions import Begun
from app.dapr.history.model import WorkflowRun
from app.domain.errors import HistoryTampered, TaskNotFound
from app.domain.standing import Standing
from app.ledger.recording.projection import Naming, Written, project
from app.ledger.store import standings
from app.ledger.store.call_rows import call_records
from app.ledger.store.tables import EXECUTIONS, MODEL_CALLS, WORKERS
from app.ledger.store.task_record import TaskRecord
from app.pricing.book import PriceBook
from app.pricing.charge_types import CallRecord

_READ_AT_ONCE = 8

_CALLS = select(MODEL_CALLS).where(MODEL_CALLS.c.task_id.in_(bindparam("ids", expanding=True)))
_BEGUN = (
    select(EXECUTIONS, WORKERS.c.seen_at, WORKERS.c.stopped_at)
    .join(WORKERS, WORKERS.c.worker == EXECUTIONS.c.worker, isouter=True)
    .where(EXECUTIONS.c.task_id.in_(bindparam("ids", expanding=True)))
)


@dataclass(frozen=True)
class Sources:
    """`history` reads one run and raises TaskNotFound, HistoryTampered, Unreachable; `said` reads what a run says of
    itself that goes on, which its history does not hold, and raises the same; `known` are the ids of all instances
    that Dapr has, of other workflows too; `clock` gives the time in UTC."""

    engine: Engine
    history: Callable[[str], WorkflowRun]
    book: PriceBook
    naming: Naming
    clock: Callable[[], datetime]
    said: Callable[[str], str | None] = lambda _: None
    known: Callable[[], Iterable[str]] = tuple

    def runs(self, task_ids: Sequence[str]) -> Mapping[str, WorkflowRun | TaskNotFound | HistoryTampered]:
        """The history of each task, or why there is none. Several are read at a time: daprd loads and verifies a whole
        history for each. Raises Unreachable."""
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            return dict(zip(task_ids, pool.map(self._read, task_ids), strict=True))

    def _read(self, task_id: str) -> WorkflowRun | TaskNotFound | HistoryTampered:
        try:
            return self.history(task_id)
        except (TaskNotFound, HistoryTampered) as error:
            return error

    def standing(self, found: Iterable[tuple[WorkflowRun, TaskRecord]]) -> Mapping[str, Standing]:
        """Where those tasks stand of which nobody told so: the worker that brought them there died, or is another's.
        Raises Unreachable."""
        bare = {run.instance_id: (run, record, standings.of_run(run, record.status, None)) for run, record in found}
        with self.engine.connect() as connection:
            known = standings.stood_at(connection, list(bare))
        news: dict[str, Standing] = {}
        for task_id, (run, record, standing) in bare.items():
            told = known.get(task_id)
            if told is None or (standing.at is not None and told < standing.at):
                said = self.said(task_id) if standing.resting else None
                news[task_id] = standings.of_run(run, record.status, said)
        return news

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

    def record(self, run: WorkflowRun, written: Written, book: PriceBook | None = None) -> TaskRecord:
        """The record of one task, as it is now; by another book than today's if there is one."""
        return project(run, written, book or self.book, self.naming, self.clock())
