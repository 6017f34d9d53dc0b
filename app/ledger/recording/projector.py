"""Keeps the ledger up to date: reads the history of each task that rests or ends, and saves its record.

The worker reports tasks with `hint`. Sweeps, at the start and then every few seconds, find tasks that were not reported
because their worker died. Recording is idempotent, so the process may be killed at any point.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from app.dapr.history.model import WorkflowRun
from app.domain.errors import HistoryTampered, LedgerGone, TaskNotFound, Unreachable
from app.domain.models import TaskStatus
from app.domain.standing import Standing
from app.ledger.recording.recovering import ended_without_history
from app.ledger.recording.saving import save
from app.ledger.recording.sources import Sources
from app.ledger.store.charge_rows import Prices
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.standings import Standings
from app.ledger.store.tables import PRICE_BOOKS, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.ledger.store.writer import Writer

log = logging.getLogger(__name__)


# daprd saves the outcome of a turn a moment after the worker delivered it, so a task is due `AFTER_SECONDS` after its
# report. Tasks due up to `_EARLY_SECONDS` later are taken along: under load, many tasks share one transaction.
AFTER_SECONDS, _EARLY_SECONDS = 0.6, 0.4
# A task whose history does not yet show the reported state is read again after pauses that double.
_TRIES = 8
_FIRST_SECONDS, _LONGEST_SECONDS = 0.4, 15.0


class DueQueue:
    """The tasks to record, each with the time when it is due. Thread-safe. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._due)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def add(self, task_id: str, *, ended: bool) -> None:
        """Adds a task that was reported as resting or, with `ended`, as ended, which resets the count of its tries."""
        with self._changed:
            if ended:
                self._tries[task_id] = 0
            self._due[task_id] = self._clock() + AFTER_SECONDS
            self._changed.notify()

    def look(self, task_id: str) -> None:
        """Adds a task unless it is in the queue already; repeated calls do not postpone it."""
        with self._changed:
            self._due.setdefault(task_id, self._clock() + AFTER_SECONDS)
            self._changed.notify()

    def again(self, task_id: str) -> None:
        """Adds a task for another try, after a pause that grows with each try; does nothing once closed."""
        with self._changed:
            if self._closed:
                return
            tries = self._tries[task_id] = self._tries.get(task_id, 0) + 1
            pause = min(_FIRST_SECONDS * 2 ** min(tries - 1, _TRIES), _LONGEST_SECONDS)
            self._due.setdefault(task_id, self._clock() + pause)

    def expects_more(self, task_id: str) -> bool:
        """Whether a task that was reported as ended has tries left."""
        return self._tries.get(task_id, _TRIES) < _TRIES

    def done(self, task_id: str) -> None:
        """Forgets the tries of a task that is recorded, unless it is in the queue again."""
        with self._changed:
            if task_id not in self._due:
                self._tries.pop(task_id, None)

    def take(self, most: int, until: float) -> list[str] | None:
        """Waits for due tasks until `until` (of the clock) and removes up to `most` of them; empty if none became due.
        Once closed, returns tasks that are due or were reported as ended and not tried yet, and then None."""
        with self._changed:
            while not (due := self._ready(most)):
                if self._closed:
                    return None
                pause = min([until, *self._due.values()]) - self._clock()
                if pause <= 0 and self._clock() >= until:
                    return []
                self._changed.wait(max(pause, 0.001))
            for task_id in due:
                del self._due[task_id]
            return due

    def close(self) -> None:
        """Makes `take` return the remaining tasks, and then None."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _ready(self, most: int) -> list[str]:
        now = self._clock()
        if not self._closed and any(at <= now for at in self._due.values()):
            now += _EARLY_SECONDS
        fresh = {task_id for task_id in self._due if self._closed and self._tries.get(task_id) == 0}
        ready = sorted((at, task_id) for task_id, at in self._due.items() if at <= now or task_id in fresh)
        return [task_id for _, task_id in ready[:most]]


Observer = Callable[[TaskRecord], None]
_BATCH = 16
# Small, because journal rows of model calls wait for this transaction.
_SAVE_BATCH = 4
# Sweeps skip tickets younger than this, because their workers will report them.
_SWEPT_AFTER = timedelta(seconds=60)
# How long a run may be pending (accepted by Dapr, without a turn) before Dapr is asked to start it.
_PENDING_SECONDS = 20.0
# Tasks that the workflow's code could not run are retried at the start, and then after pauses that double.
_FIRST_TRY_SECONDS, _LAST_TRY_SECONDS = 60.0, 3_600.0
_SWEEP_SECONDS, _SWEEP_BATCH = 10.0, 50
_NOT_RECORDED = (
    select(TICKETS.c.sequence, TICKETS.c.task_id)
    .where(
        TICKETS.c.recorded.is_(False),
        TICKETS.c.started,
        TICKETS.c.sequence > bindparam("after"),
        TICKETS.c.received_at < bindparam("before"),
    )
    .order_by(TICKETS.c.sequence)
    .limit(_SWEEP_BATCH)
)


class Projector:
    """Records tasks in its own thread. Each observer is called once for every ended task, after the commit."""

    def __init__(
        self,
        sources: Sources,
        writer: Writer,
        observers: Sequence[Observer] = (),
        begin_again: Callable[[HistoryTampered], bool] = lambda _: False,
        wake: Callable[[str], None] = lambda _: None,
        begin: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`begin_again` restarts the task of a rejected run, now or later, and returns False if it will not. `wake`
        makes Dapr run another turn of a run that the workflow's code could not run, `begin` the first turn of a pending
        run."""
        self._sources = sources
        self._wake = wake
        self._begin = begin
        self._pending: dict[str, float] = {}
        self._try_at, self._try_pause = 0.0, _FIRST_TRY_SECONDS
        self._begin_again = begin_again
        self._writer = writer
        self._standings = Standings(sources.engine, writer, sources.clock)
        self._observers = observers
        self._prices = Prices(sources.engine)
        self._due_queue = DueQueue(time.monotonic)
        self._swept = 0
        self._given_up = False
        self._started_at = sources.clock()
        self._logged: set[str] = set()
        self.tampered = 0  # histories that do not verify, since the start
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)

    def start(self) -> None:
        """Saves the price book and starts the thread, which first sweeps all tasks that are not recorded yet."""
        book = self._sources.book
        row = {"digest": book.digest, "content": book.content, "first_used_at": self._sources.clock()}
        self._writer.run(lambda connection: connection.execute(insert_or_ignore(connection, PRICE_BOOKS), row).rowcount)
        self._thread.start()

    def stop(self) -> None:
        """Records the tasks that are due, while the sidecar still answers, and ends the thread."""
        self._due_queue.close()
        self._thread.join()

    def hint(self, task_id: str, *, ended: bool) -> None:
        """Reports that a task ended, or rests. Does not block; any thread may call."""
        self._due_queue.add(task_id, ended=ended)

    def look(self, task_id: str) -> None:
        """Requests that a task be recorded soon. Does not block; any thread may call, any number of times."""
        self._due_queue.look(task_id)

    @property
    def waiting(self) -> int:
        """The number of tasks in the queue."""
        return len(self._due_queue)

    @property
    def pending(self) -> int:
        """The number of tasks that sweeps found accepted by Dapr but not started."""
        return len(self._pending)

    def _run(self) -> None:
        sweep_at, pause = time.monotonic(), 0.0  # no pause until the first sweep has reached the end of the list
        while (due := self._due_queue.take(_BATCH, until=sweep_at)) is not None:
            if due:
                self._record_safely(due)
            if time.monotonic() >= self._try_at:
                self._try_broken()
            if time.monotonic() >= sweep_at:
                pause = pause if self._sweep() else _SWEEP_SECONDS
                sweep_at = time.monotonic() + pause

    def _sweep(self) -> bool:
        """Records the next batch of tasks whose record is not final. False at the end of the list; the next sweep then
        starts from the beginning."""
        try:
            with self._sources.engine.connect() as connection:
                rows = connection.execute(_NOT_RECORDED, {"after": self._swept, "before": self._sweep_before()}).all()
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("the ledger cannot be read: %s; it is retried", type(error).__name__)
            return False
        self._swept = rows[-1].sequence if rows else 0
        for start in range(0, len(rows), _BATCH):
            self._record_safely([row.task_id for row in rows[start : start + _BATCH]])
        return bool(rows)

    def _sweep_before(self) -> datetime:
        """Tickets received before this time are swept: those from before the start of this process, and those older
        than `_SWEPT_AFTER`."""
        return max(self._started_at, self._sources.clock() - _SWEPT_AFTER)

    def _record_safely(self, task_ids: Sequence[str]) -> None:
        """Records tasks; on any error tries them one by one, and puts those that fail back into the queue."""
        try:
            self.record(task_ids)
        except Exception as error:  # of any kind: it must not end the thread, and other tasks may succeed
            log.warning("%d tasks are not recorded yet: %s: %s", len(task_ids), type(error).__name__, _short(error))
            if len(task_ids) == 1:
                self._due_queue.again(task_ids[0])
            else:
                for task_id in task_ids:
                    self._record_safely([task_id])

    def record(self, task_ids: Sequence[str]) -> None:
        """Records these tasks now."""
        runs = [run for task_id in task_ids if (run := self._read(task_id)) is not None]
        written = self._sources.written([run.instance_id for run in runs])
        records = [self._sources.record(run, written[run.instance_id]) for run in runs]
        if not records:
            return
        prices = self._prices.numbers(charge for record in records for charge in record.charges)
        standing = self._sources.standing(zip(runs, records, strict=True))
        for start in range(0, len(records), _SAVE_BATCH):
            batch = records[start : start + _SAVE_BATCH]
            new = self._writer.run(partial(save, records=batch, prices=prices, standing=standing))
            for record in batch:
                self._after_save(record, new=record.task_id in new)

    def _after_save(self, record: TaskRecord, *, new: bool) -> None:
        ended = record.ended_at is not None
        if not record.final and (ended or self._due_queue.expects_more(record.task_id)):
            self._due_queue.again(record.task_id)
        else:
            self._due_queue.done(record.task_id)
        for observer in self._observers if new else ():
            self._observe(observer, record)

    def _observe(self, observer: Observer, record: TaskRecord) -> None:
        """Calls an observer. An error of the observer is only logged, since the task is recorded."""
        try:
            observer(record)
        except Exception:
            log.exception("task %s: recorded, but an observer failed", record.task_id)

    def _read(self, task_id: str) -> WorkflowRun | None:
        """The history of a task. None if it cannot be recorded now (the task is queued again) or at all (logged
        once)."""
        if self._given_up:
            return None
        try:
            run = self._sources.history(task_id)
        except Unreachable:
            self._given_up = self._due_queue.closed  # the first sweep after the next start finds the remaining tasks
            self._due_queue.again(task_id)
            return None
        except (TaskNotFound, HistoryTampered) as error:
            if isinstance(error, HistoryTampered) and self._begin_again(error):
                self._due_queue.again(task_id)
                return None
            ended = self._without_history(task_id) if isinstance(error, TaskNotFound) else None
            if ended is None:
                self._due_queue.done(task_id)
                self._report_failure(task_id, error)
            return ended
        if run.started_at is None:
            self._start_pending(task_id)
            self._due_queue.again(task_id)
            return None
        self._pending.pop(task_id, None)
        self._logged.discard(task_id)
        return run

    def _start_pending(self, task_id: str) -> None:
        """Asks Dapr to start a run that stays pending. daprd may request a run's first turn before it has saved the run
        (`NEVER_STARTED`): if it stalls in between, another sidecar finds nothing to run, and no turn is requested
        again. Only sweeps see such a run, so it is at least a minute old."""
        now = time.monotonic()
        if now - self._pending.setdefault(task_id, now) < _PENDING_SECONDS:
            return
        self._pending[task_id] = now
        log.warning("task %s: Dapr accepted it and has not started it; asking Dapr to start it", task_id)
        self._request(self._begin, task_id)

    def _request(self, action: Callable[[str], None], task_id: str) -> None:
        """Calls Dapr for one task. An unreachable sidecar or a task unknown to Dapr is logged only."""
        try:
            action(task_id)
        except Unreachable as error:
            log.warning("task %s: %s", task_id, error)

    def _try_broken(self) -> None:
        """Wakes the tasks that the workflow's code could not run: an upgrade or a rollback, here or in another worker,
        may have changed the code since."""
        self._try_at, self._try_pause = time.monotonic() + self._try_pause, min(2 * self._try_pause, _LAST_TRY_SECONDS)
        try:
            broken = self._standings.broken()
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("tasks parked by their workflow's code are not tried again yet: %s", type(error).__name__)
            self._try_at = time.monotonic() + _SWEEP_SECONDS
            return
        for task_id in broken:
            self._request(self._wake, task_id)

    def _without_history(self, task_id: str) -> WorkflowRun | None:
        """The run of a task that ended and was purged before it was recorded; None for other tasks."""
        with self._sources.engine.connect() as connection:
            return ended_without_history(connection, [task_id]).get(task_id)

    def _report_failure(self, task_id: str, error: TaskNotFound | HistoryTampered) -> None:
        """Logs why a task cannot be recorded, and writes it into the ledger; only once, although each sweep finds the
        task again."""
        if task_id in self._logged:
            return
        self._logged.add(task_id)
        self.tampered += isinstance(error, HistoryTampered)
        log.error("task %s is not recorded: %s", task_id, error)
        if isinstance(error, TaskNotFound):
            self._standings.mark_unknown(task_id)
            return
        if error.given_up_at is not None:
            self._standings.report(task_id, Standing(status=TaskStatus.FAILED, at=error.given_up_at, error=error.words))
        self._standings.set_caveat(task_id, str(error))


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200] if str(error) else ""
