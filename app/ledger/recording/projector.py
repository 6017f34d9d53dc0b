"""Keeps the ledger up to date: each task that rests or ends is read from Dapr's history and recorded, once or again.

It is told of tasks by the worker (`hint`), and looks for those that nobody told of, because a worker died: at its start
for all of them, later for some at a time. Whatever is done twice changes nothing, so it may be killed at any point.
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


# Which tasks are to be recorded, and when: soon after somebody told of them, and again until there is nothing new.

# daprd saves a turn's outcome a moment after the worker has delivered it. What is due this much later is taken as well:
# under load, many tasks share one transaction.
AFTER_SECONDS, _EARLY_SECONDS = 0.6, 0.4
# A task that was not where it was said to be is looked at again after pauses that double.
_TRIES = 8
_FIRST_SECONDS, _LONGEST_SECONDS = 0.4, 15.0


class DueQueue:
    """A task is in it once. Thread-safe. `clock` gives seconds that only grow."""

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
        """Whether it is coming to its end."""
        return self._closed

    def add(self, task_id: str, *, ended: bool) -> None:
        """Puts a task in as news: it has come to its end, or only to rest."""
        with self._changed:
            if ended:
                self._tries[task_id] = 0
            self._due[task_id] = self._clock() + AFTER_SECONDS
            self._changed.notify()

    def look(self, task_id: str) -> None:
        """Puts a task in that is not in already: however often somebody asks, it does not become later."""
        with self._changed:
            self._due.setdefault(task_id, self._clock() + AFTER_SECONDS)
            self._changed.notify()

    def again(self, task_id: str) -> None:
        """Puts a task in for another look, later each time; once closed, there is none."""
        with self._changed:
            if self._closed:
                return
            tries = self._tries[task_id] = self._tries.get(task_id, 0) + 1
            pause = min(_FIRST_SECONDS * 2 ** min(tries - 1, _TRIES), _LONGEST_SECONDS)
            self._due.setdefault(task_id, self._clock() + pause)

    def expects_more(self, task_id: str) -> bool:
        """Whether a task that is said to have ended is still worth another look soon."""
        return self._tries.get(task_id, _TRIES) < _TRIES

    def done(self, task_id: str) -> None:
        """There is nothing more to come of a task, unless somebody tells of it."""
        with self._changed:
            if task_id not in self._due:
                self._tries.pop(task_id, None)

    def take(self, most: int, until: float) -> list[str] | None:
        """Waits for tasks that are due, until that moment; takes some of them out. Once closed, those that are due or
        new, and None when there are no more."""
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
        """Lets `take` come to its end."""
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
_AT_ONCE = 16
# A model call that is to be journalled waits for the transaction before its own.
_SAVED_AT_ONCE = 4
# Younger ones are at work, and told of when they rest.
_SWEPT_AFTER = timedelta(seconds=60)
# How long a run that Dapr has taken in is seen without a turn before Dapr is asked for one.
_PENDING_SECONDS = 20.0
# Tasks that a worker's code could not run are tried again at the start, and then after pauses that double.
_FIRST_TRY_SECONDS, _LAST_TRY_SECONDS = 60.0, 3_600.0
_SWEEP_SECONDS, _SWEPT_AT_ONCE = 10.0, 50
_NOT_RECORDED = (
    select(TICKETS.c.sequence, TICKETS.c.task_id)
    .where(
        TICKETS.c.recorded.is_(False),
        TICKETS.c.started,
        TICKETS.c.sequence > bindparam("after"),
        TICKETS.c.received_at < bindparam("before"),
    )
    .order_by(TICKETS.c.sequence)
    .limit(_SWEPT_AT_ONCE)
)


class Projector:
    """Records tasks, in a thread of its own. Each of `observers` sees every task that has ended once, committed."""

    def __init__(
        self,
        sources: Sources,
        writer: Writer,
        observers: Sequence[Observer] = (),
        begin_again: Callable[[HistoryTampered], bool] = lambda _: False,
        wake: Callable[[str], None] = lambda _: None,
        begin: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`begin_again` may give a run that does not verify another go, now or later, and says whether it does. `wake`
        has Dapr run a turn of a run whose code could not run, `begin` the first one of a run that it has not begun."""
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
        self._began = sources.clock()
        self._told: set[str] = set()
        self.tampered = 0  # histories that do not verify, since the start
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)

    def start(self) -> None:
        """Begins, with whatever was left unrecorded."""
        book = self._sources.book
        row = {"digest": book.digest, "content": book.content, "first_used_at": self._sources.clock()}
        self._writer.run(lambda connection: connection.execute(insert_or_ignore(connection, PRICE_BOOKS), row).rowcount)
        self._thread.start()

    def stop(self) -> None:
        """Records what is due, as far as the sidecar still answers, and ends the thread."""
        self._due_queue.close()
        self._thread.join()

    def hint(self, task_id: str, *, ended: bool) -> None:
        """Says that a task has come to its end, or to rest. Never waits; any thread may call."""
        self._due_queue.add(task_id, ended=ended)

    def look(self, task_id: str) -> None:
        """Asks for a task to be read soon. Never waits; any thread may call, as often as it likes."""
        self._due_queue.look(task_id)

    @property
    def waiting(self) -> int:
        """How many tasks are still to be recorded, as far as is known."""
        return len(self._due_queue)

    @property
    def pending(self) -> int:
        """How many tasks Dapr has taken in and not begun, for longer than it should take."""
        return len(self._pending)

    def _run(self) -> None:
        sweep_at, pause = time.monotonic(), 0.0  # first all that was left by those before, beside what is news
        while (due := self._due_queue.take(_AT_ONCE, until=sweep_at)) is not None:
            if due:
                self._safely(due)
            if time.monotonic() >= self._try_at:
                self._try_broken()
            if time.monotonic() >= sweep_at:
                pause = pause if self._sweep() else _SWEEP_SECONDS
                sweep_at = time.monotonic() + pause

    def _sweep(self) -> bool:
        """Records some of the tasks that are not final yet; False at the end of the list, where it begins anew."""
        try:
            with self._sources.engine.connect() as connection:
                found = connection.execute(_NOT_RECORDED, {"after": self._swept, "before": self._sweep_before()}).all()
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("ledger: cannot be read: %s; tried again", type(error).__name__)
            return False
        self._swept = found[-1].sequence if found else 0
        for start in range(0, len(found), _AT_ONCE):
            self._safely([row.task_id for row in found[start : start + _AT_ONCE]])
        return bool(found)

    def _sweep_before(self) -> datetime:
        """Those of the time before this process, whatever their age."""
        return max(self._began, self._sources.clock() - _SWEPT_AFTER)

    def _safely(self, task_ids: Sequence[str]) -> None:
        """A task that cannot be recorded now is tried again; none may end the thread."""
        try:
            self.record(task_ids)
        except Exception as error:  # whatever it is: the next task may be fine
            log.warning("%d tasks are not recorded yet: %s: %s", len(task_ids), type(error).__name__, _short(error))
            self._one_by_one(task_ids)

    def _one_by_one(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids if len(task_ids) > 1 else ():
            self._safely([task_id])
        if len(task_ids) == 1:
            self._due_queue.again(task_ids[0])

    def record(self, task_ids: Sequence[str]) -> None:
        """Records these tasks now."""
        runs = [run for task_id in task_ids if (run := self._read(task_id)) is not None]
        written = self._sources.written([run.instance_id for run in runs])
        records = [self._sources.record(run, written[run.instance_id]) for run in runs]
        if not records:
            return
        prices = self._prices.numbers(charge for record in records for charge in record.charges)
        standing = self._sources.standing(zip(runs, records, strict=True))
        for start in range(0, len(records), _SAVED_AT_ONCE):
            some = records[start : start + _SAVED_AT_ONCE]
            new = self._writer.run(partial(save, records=some, prices=prices, standing=standing))
            for record in some:
                self._recorded(record, new=record.task_id in new)

    def _recorded(self, record: TaskRecord, *, new: bool) -> None:
        ended = record.ended_at is not None
        if not record.final and (ended or self._due_queue.expects_more(record.task_id)):
            self._due_queue.again(record.task_id)
        else:
            self._due_queue.done(record.task_id)
        for observer in self._observers if new else ():
            self._observe(observer, record)

    def _observe(self, observer: Observer, record: TaskRecord) -> None:
        """What an observer makes of a task is its own business: the task is recorded."""
        try:
            observer(record)
        except Exception:
            log.exception("task %s: recorded, but not told to everybody who wants to know", record.task_id)

    def _read(self, task_id: str) -> WorkflowRun | None:
        """None for what cannot be recorded now, or at all; said once for each task."""
        if self._given_up:
            return None
        try:
            run = self._sources.history(task_id)
        except Unreachable:
            self._given_up = self._due_queue.closed  # the next start finds the others
            self._due_queue.again(task_id)
            return None
        except (TaskNotFound, HistoryTampered) as error:
            if isinstance(error, HistoryTampered) and self._begin_again(error):
                self._due_queue.again(task_id)
                return None
            ended = self._without_history(task_id) if isinstance(error, TaskNotFound) else None
            if ended is None:
                self._due_queue.done(task_id)
                self._tell(task_id, error)
            return ended
        if run.started_at is None:
            self._look_after_pending(task_id)
            self._due_queue.again(task_id)
            return None
        self._pending.pop(task_id, None)
        self._told.discard(task_id)
        return run

    def _look_after_pending(self, task_id: str) -> None:
        """daprd may ask for a run's first turn before it has saved the run (`NEVER_BEGUN`): when it stands still in
        between, another sidecar finds nothing to run, and nobody asks again. Only a sweep comes here: it is a minute
        old."""
        now = time.monotonic()
        if now - self._pending.setdefault(task_id, now) < _PENDING_SECONDS:
            return
        self._pending[task_id] = now
        log.warning("task %s: Dapr has it and has not begun it; it is asked to", task_id)
        self._asked(self._begin, task_id)

    def _asked(self, what: Callable[[str], None], task_id: str) -> None:
        """One that Dapr does not know any more, or a sidecar that is away, keeps no other from it."""
        try:
            what(task_id)
        except Unreachable as error:
            log.warning("task %s: %s", task_id, error)

    def _try_broken(self) -> None:
        """The code may be another one by now, here or in another worker: an upgrade, or one that was taken back."""
        self._try_at, self._try_pause = time.monotonic() + self._try_pause, min(2 * self._try_pause, _LAST_TRY_SECONDS)
        try:
            broken = self._standings.broken()
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("tasks parked by their workflow's code are not tried again yet: %s", type(error).__name__)
            self._try_at = time.monotonic() + _SWEEP_SECONDS
            return
        for task_id in broken:
            self._asked(self._wake, task_id)

    def _without_history(self, task_id: str) -> WorkflowRun | None:
        """A task that has ended and was purged at once, as a retention policy may have it."""
        with self._sources.engine.connect() as connection:
            return ended_without_history(connection, [task_id]).get(task_id)

    def _tell(self, task_id: str, error: TaskNotFound | HistoryTampered) -> None:
        """Once in the log: each sweep comes to it again. A reader of the ledger is to know it as well."""
        if task_id in self._told:
            return
        self._told.add(task_id)
        self.tampered += isinstance(error, HistoryTampered)
        log.error("task %s is not recorded: %s", task_id, error)
        if isinstance(error, TaskNotFound):
            self._standings.lost(task_id)
            return
        if error.given_up_at is not None:
            self._standings.tell(task_id, Standing(status=TaskStatus.FAILED, at=error.given_up_at, error=error.words))
        self._standings.doubt(task_id, str(error))


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200] if str(error) else ""
