"""The sources of records: Dapr's histories, the journal, the execution log, a price book and naming rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, bindparam, select

from app.dapr.history.executions import StartedExecution
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

_CONCURRENT_READS = 8

_CALLS = select(MODEL_CALLS).where(MODEL_CALLS.c.task_id.in_(bindparam("ids", expanding=True)))
_EXECUTIONS = (
    select(EXECUTIONS, WORKERS.c.seen_at, WORKERS.c.stopped_at)
    .join(WORKERS, WORKERS.c.worker == EXECUTIONS.c.worker, isouter=True)
    .where(EXECUTIONS.c.task_id.in_(bindparam("ids", expanding=True)))
)


@dataclass(frozen=True)
class Sources:
    """The sources of records, and what reads them.

    history: reads one run; raises TaskNotFound, HistoryTampered, Unreachable.
    custom_status: of a run that has not ended, since its history does not hold it; raises the same.
    instance_ids: of all workflow instances in Dapr, including those of other workflows.
    clock: the time in UTC.
    """

    engine: Engine
    history: Callable[[str], WorkflowRun]
    book: PriceBook
    naming: Naming
    clock: Callable[[], datetime]
    custom_status: Callable[[str], str | None] = lambda _: None
    instance_ids: Callable[[], Iterable[str]] = tuple

    def runs(self, task_ids: Sequence[str]) -> Mapping[str, WorkflowRun | TaskNotFound | HistoryTampered]:
        """The history of each task, or the error that says why there is none. Reads several at a time, since daprd
        loads and verifies a whole history for each. Raises Unreachable."""
        with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
            return dict(zip(task_ids, pool.map(self._read, task_ids), strict=True))

    def _read(self, task_id: str) -> WorkflowRun | TaskNotFound | HistoryTampered:
        try:
            return self.history(task_id)
        except (TaskNotFound, HistoryTampered) as error:
            return error

    def standing(self, recorded: Iterable[tuple[WorkflowRun, TaskRecord]]) -> Mapping[str, Standing]:
        """The standings of those tasks whose history is ahead of the ledger, because the worker that ran their last
        turn died or does not report here. Raises Unreachable."""
        tasks = {run.instance_id: (run, record, standings.of_run(run, record.status, None)) for run, record in recorded}
        with self.engine.connect() as connection:
            ledger_turns = standings.stood_at(connection, list(tasks))
        news: dict[str, Standing] = {}
        for task_id, (run, record, standing) in tasks.items():
            ledger_turn = ledger_turns.get(task_id)
            if ledger_turn is None or (standing.at is not None and ledger_turn < standing.at):
                custom_status = self.custom_status(task_id) if standing.resting else None
                news[task_id] = standings.of_run(run, record.status, custom_status)
        return news

    def written(self, task_ids: Sequence[str]) -> Mapping[str, Written]:
        """The model calls and executions of each task that workers have written so far."""
        calls: dict[str, list[CallRecord]] = {task_id: [] for task_id in task_ids}
        begun: dict[str, list[StartedExecution]] = {task_id: [] for task_id in task_ids}
        with self.engine.connect() as connection:
            for call in call_records(connection.execute(_CALLS, {"ids": list(task_ids)}).mappings()):
                calls[call.task_id].append(call)
            for row in connection.execute(_EXECUTIONS, {"ids": list(task_ids)}):
                begun[row.task_id].append(StartedExecution(*row[1:]))
        return {task_id: Written(calls[task_id], begun[task_id]) for task_id in task_ids}

    def record(self, run: WorkflowRun, written: Written, book: PriceBook | None = None) -> TaskRecord:
        """The record of one task as of now; priced by `book`, or by today's."""
        return project(run, written, book or self.book, self.naming, self.clock())
