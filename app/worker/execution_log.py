"""The execution log (a row before each execution of a step), steps that kill their workers, and the heartbeat.

A worker that is killed reports nothing; its row in the log shows what it was working on. The sidecar hands the attempt
to another worker, without limit. An attempt that has killed several workers is a *suspect*. Suspects run one at a time,
so that attempts that only shared a worker with a suspect get through. An attempt that has killed even more workers is
set aside: it fails with that reason, and its task parks.

A sidecar that was frozen may hand out a step that has been completed since. Before a step is executed again, its result
is looked up in Dapr's history and returned if it is there. When a worker joins or leaves, Dapr hands out steps again
that another worker is still working on. While that worker lives, its result is awaited.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.dapr.history.executions import GONE_AFTER
from app.domain.errors import AttemptAlreadyFailed, LedgerGone, RefundAgentError, StepSetAside
from app.domain.models import CallState
from app.ledger.store.call_rows import reopen_record
from app.ledger.store.tables import EXECUTIONS, MODEL_CALLS, TICKETS, WORKERS, microseconds
from app.ledger.store.writer import Writer, run

log = logging.getLogger(__name__)

# From this number of dead workers on, an attempt runs alone. Fewer prove nothing: workers die for other reasons too,
# together with whatever they were executing.
SUSPECT_AFTER = 3
# An attempt that kills two more workers while it runs alone is the cause.
SET_ASIDE_AFTER = 5

# The result of a worker without a heartbeat for this long is not awaited; it beats once a second.
_SILENT_AFTER = timedelta(seconds=3)
# How long another worker's result is awaited: a model call (resiliency/llm.yaml) and the time to save its result.
_WAIT_SECONDS = 90.0
# The first and the longest pause between two queries for it.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 1.0

_MINE = WORKERS.alias("mine")
_THIS_ATTEMPT = and_(
    EXECUTIONS.c.task_id == bindparam("the_task"),
    EXECUTIONS.c.execution_id == bindparam("the_step"),
    EXECUTIONS.c.event_id == bindparam("the_event"),
)
_THIS = and_(_THIS_ATTEMPT, EXECUTIONS.c.number == bindparam("the_number"))
_LAST = select(func.max(EXECUTIONS.c.number)).where(_THIS_ATTEMPT)
_START = insert(EXECUTIONS)
_WITHDRAW = delete(EXECUTIONS).where(_THIS)
_LOSE = update(EXECUTIONS).where(_THIS).values(lost_at=bindparam("lost"))
# Counts living workers that are executing the attempt. Only those beside another sidecar, because one sidecar hands a
# step to one worker at a time.
_RUNNING_ELSEWHERE = (
    select(func.count())
    .select_from(EXECUTIONS)
    .join(WORKERS, WORKERS.c.worker == EXECUTIONS.c.worker)
    .where(
        _THIS_ATTEMPT,
        EXECUTIONS.c.lost_at.is_(None),
        WORKERS.c.sidecar
        != select(_MINE.c.sidecar).where(_MINE.c.worker == bindparam("this_worker")).scalar_subquery(),
        WORKERS.c.seen_at > bindparam("alive"),
        WORKERS.c.stopped_at.is_(None),
    )
)
# Counts other workers that started the attempt and died.
_DEAD = (
    select(func.count(EXECUTIONS.c.worker.distinct()))
    .join(WORKERS, WORKERS.c.worker == EXECUTIONS.c.worker)
    .where(
        _THIS_ATTEMPT,
        EXECUTIONS.c.lost_at.is_(None),
        EXECUTIONS.c.worker != bindparam("this_worker"),
        WORKERS.c.stopped_at.is_(None),
    )
)


@dataclass(frozen=True)
class StepAttempt:
    """One attempt, as the sidecar hands it out. execution_id: Dapr's `taskExecutionId`, the same for all attempts of a
    step. event_id: Dapr's number of the attempt's schedule. step: the activity's name."""

    task_id: str
    execution_id: str
    event_id: int
    step: str

    @property
    def key(self) -> dict[str, Any]:
        """The parameters that identify the attempt in a statement."""
        return {"the_task": self.task_id, "the_step": self.execution_id, "the_event": self.event_id}


class Executions:
    """Logs and guards the executions of one worker. For use on one event loop."""

    def __init__(
        self,
        writer: Writer,
        worker: str,
        clock: Callable[[], datetime],
        completed: Callable[[StepAttempt], str | None] = lambda _: None,
    ) -> None:
        """`completed` returns the result of an attempt from Dapr's history, as it was delivered; None if it has
        none."""
        self._completed = completed
        self._writer = writer
        self._worker = worker
        self._clock = clock
        self._running: set[tuple[StepAttempt, int]] = set()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def start(self, attempt: StepAttempt) -> AsyncIterator[str | None]:
        """A context for the execution of an attempt. Yields None if the attempt must be executed; if it has a result
        already, yields that result.

        Raises StepSetAside if the attempt has killed too many workers, AttemptAlreadyFailed if it has failed elsewhere,
        and SQLAlchemyError if the log cannot be written.
        """
        number = await self._write_start(attempt)
        if number > 1:
            # Not logged as started while it waits: if another attempt kills this worker, this one must not be blamed.
            await self._writer.write(lambda connection: run(connection, _WITHDRAW, _execution_key(attempt, number)))
            if (result := await self._existing_result(attempt)) is not None:
                yield result
                return
            if number > SUSPECT_AFTER and await self._dead_workers(attempt) >= SUSPECT_AFTER:
                async with self._alone:
                    await self._check_suspect(attempt)
                    async with self._track(attempt, await self._write_start(attempt)):
                        yield None
                return
            number = await self._write_start(attempt)
        async with self._track(attempt, number):
            yield None

    async def lose(self, only: StepAttempt | None = None) -> None:
        """Logs running executions as lost, because the sidecar that waits for their results is gone: all of them, or
        those of one attempt."""
        keys = [key for key in self._running if only in (None, key[0])]
        lost = [_execution_key(*key) | {"lost": microseconds(self._clock())} for key in keys]
        if not lost:
            return
        try:
            await self._writer.write(lambda connection: [run(connection, _LOSE, values) for values in lost])
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("ledger: the loss of %d executions is not recorded: %s", len(lost), type(error).__name__)

    async def _existing_result(self, attempt: StepAttempt) -> str | None:
        """The result in the history. Waits for it while another worker is executing the attempt; None if none comes."""
        until, pause = time.monotonic() + _WAIT_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            # Checked before the history is read: the other worker's result may arrive in between.
            elsewhere = await self._is_running_elsewhere(attempt)
            result = await self._result_in_history(attempt)
            if result is not None or not elsewhere or time.monotonic() > until:
                return result
            if pause == _FIRST_PAUSE_SECONDS:
                log.info(
                    "task %s: another worker is executing step %s; waiting for its result",
                    attempt.task_id,
                    attempt.step,
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _is_running_elsewhere(self, attempt: StepAttempt) -> bool:
        values = attempt.key | {"this_worker": self._worker, "alive": microseconds(self._clock() - _SILENT_AFTER)}
        return bool(
            await self._writer.write(lambda connection: run(connection, _RUNNING_ELSEWHERE, values).scalar_one())
        )

    async def _result_in_history(self, attempt: StepAttempt) -> str | None:
        """The result in the history; None if there is none, or if the history cannot be read: executing a step twice is
        harmless."""
        try:
            return await asyncio.to_thread(self._completed, attempt)
        except AttemptAlreadyFailed:
            raise
        except RefundAgentError as error:
            log.warning(
                "task %s: step %s is executed again, because its history cannot be read: %s",
                attempt.task_id,
                attempt.step,
                error,
            )
            return None

    async def _check_suspect(self, attempt: StepAttempt) -> None:
        """Raises StepSetAside if a suspect has killed too many workers."""
        dead = await self._dead_workers(attempt)
        if dead >= SET_ASIDE_AFTER:
            log.error(
                "task %s: step %s is set aside: %d workers died while they executed it",
                attempt.task_id,
                attempt.step,
                dead,
            )
            raise StepSetAside(attempt.task_id, attempt.step, dead)
        log.warning(
            "task %s: %d workers died while they executed step %s; it is executed alone",
            attempt.task_id,
            dead,
            attempt.step,
        )

    @asynccontextmanager
    async def _track(self, attempt: StepAttempt, number: int) -> AsyncIterator[None]:
        self._running.add((attempt, number))
        try:
            yield
        finally:
            self._running.discard((attempt, number))

    async def _write_start(self, attempt: StepAttempt) -> int:
        """Writes the row of an execution. Returns its number: 1 for the first execution of the attempt."""
        row = {
            "task_id": attempt.task_id,
            "execution_id": attempt.execution_id,
            "event_id": attempt.event_id,
            "worker": self._worker,
            "started_at": microseconds(self._clock()),
        }
        try:
            return await self._writer.write(lambda connection: _insert_start(connection, attempt, row))
        except IntegrityError:  # another worker has written the same number at the same moment
            return await self._writer.write(lambda connection: _insert_start(connection, attempt, row))

    async def _dead_workers(self, attempt: StepAttempt) -> int:
        """The number of other workers that started the attempt and died."""
        values = attempt.key | {"this_worker": self._worker}
        return int(await self._writer.write(lambda connection: run(connection, _DEAD, values).scalar_one()))


def _insert_start(connection: Connection, attempt: StepAttempt, row: dict[str, Any]) -> int:
    number = int(run(connection, _LAST, attempt.key).scalar_one() or 0) + 1
    run(connection, _START, row | {"number": number})
    if number > 1:
        reopen_record(connection, attempt.task_id)  # a sidecar that was frozen may hand out a step that ended long ago
    return number


def _execution_key(attempt: StepAttempt, number: int) -> dict[str, Any]:
    return attempt.key | {"the_number": number}


# A killed worker's last heartbeat shows when it died, so this is the precision of idle times.
BEAT_SECONDS = 1.0
_NAME_CHARACTERS, _VERSION_CHARACTERS = 200, 40
# The longest time that a step takes.
_LONGEST_STEP = timedelta(minutes=15)


class Heartbeat:
    """The worker's row in the ledger, kept up to date from `begin` to `end`. Each beat also closes model calls that
    dead workers have left open. `worker` is a new id for each process."""

    def __init__(self, writer: Writer, clock: Callable[[], datetime], sidecar: str = "", daprd: str = "") -> None:
        """`sidecar`: machine and address of this worker's sidecar, which identify it. `daprd`: its version."""
        self._sidecar = sidecar[:_NAME_CHARACTERS]
        self._daprd = daprd[:_VERSION_CHARACTERS]
        self.worker = str(uuid.uuid4())
        self._writer = writer
        self._clock = clock
        self._stop = threading.Event()
        self._seen: datetime | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def begin(self) -> None:
        """Writes the worker's row and starts to beat."""
        now = self._clock()
        sidecar = {"sidecar": self._sidecar, "daprd": self._daprd}
        row = {"worker": self.worker, "started_at": now, "seen_at": now} | sidecar
        self._writer.run(lambda connection: connection.execute(insert(WORKERS).values(row)).rowcount)
        self._thread.start()

    def end(self) -> None:
        """Stops beating and records that the worker has stopped. A worker without this record was killed."""
        self._stop.set()
        self._thread.join()
        now = self._clock()
        stopped = update(WORKERS).where(WORKERS.c.worker == self.worker).values(seen_at=now, stopped_at=now)
        try:
            self._writer.run(lambda connection: connection.execute(stopped).rowcount)
        except LedgerGone as error:
            log.error("%s", error)

    def beat(self) -> int:
        """Writes one heartbeat. Returns the number of model calls of dead workers that it closed."""
        now = self._clock()
        closed = self._writer.run(lambda connection: _beat(connection, self.worker, now, self._seen))
        self._seen = now
        return closed

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                closed = self.beat()
            except (SQLAlchemyError, LedgerGone) as error:
                log.warning("ledger: no heartbeat: %s; tried again in %.0f s", type(error).__name__, BEAT_SECONDS)
                continue
            if closed:
                log.warning("%d model calls of dead workers are closed as interrupted", closed)


def _beat(connection: Connection, worker: str, now: datetime, before: datetime | None) -> int:
    if before is not None and now - before >= GONE_AFTER:
        _reopen_records(connection, worker, before)
    connection.execute(update(WORKERS).where(WORKERS.c.worker == worker).values(seen_at=now))
    living = select(WORKERS.c.worker).where(WORKERS.c.seen_at > now - GONE_AFTER)
    orphaned = update(MODEL_CALLS).where(MODEL_CALLS.c.state == CallState.STARTED, MODEL_CALLS.c.worker.not_in(living))
    return connection.execute(orphaned.values(state=CallState.INTERRUPTED, error="the worker is gone")).rowcount


def _reopen_records(connection: Connection, worker: str, since: datetime) -> None:
    """Marks the tasks that this worker was working on when it froze at `since` as not recorded. Other workers took it
    for dead, so the records of these tasks may be wrong."""
    task_ids = select(EXECUTIONS.c.task_id).where(
        EXECUTIONS.c.worker == worker, EXECUTIONS.c.started_at > since - _LONGEST_STEP
    )
    unrecorded = update(TICKETS).where(TICKETS.c.task_id.in_(task_ids), TICKETS.c.recorded).values(recorded=False)
    connection.execute(unrecorded)
