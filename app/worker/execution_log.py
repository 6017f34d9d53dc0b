"""What a worker writes ahead of each step that it begins, and steps whose workers keep dying.

A worker that is killed tells nobody; the row that it wrote ahead does. The sidecar hands the attempt to the next one,
and would do so for ever: an attempt that has cost several workers their life is a *suspect*. Suspects are worked one at
a time, so that it shows which of them it is and the others, who only were there, get through; one that has cost even
more is set aside: it fails with a reason, and its task parks.

A sidecar that stood still may hand out a step that another one has completed meanwhile. Before a step is begun a second
time, Dapr's history is asked; a result that is there is handed over as it is. And when a worker joins or leaves, Dapr
hands steps over that another worker is still at: as long as that one lives, its result is waited for.
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
from app.domain.errors import LedgerGone, RefundAgentError, StepOver, StepSetAside
from app.domain.models import CallState
from app.ledger.store.call_rows import look_again
from app.ledger.store.tables import EXECUTIONS, MODEL_CALLS, TICKETS, WORKERS, microseconds
from app.ledger.store.writer import Writer, run

log = logging.getLogger(__name__)

# Workers are killed for other reasons, and take whatever they are at with them: two such accidents in a row prove
# nothing. From here on a step is worked alone.
SUSPECT_AFTER = 3
# Alone, a step that loses its worker twice more is the reason.
SET_ASIDE_AFTER = 5

# A worker that has not beaten for so long is no more waited for: it beats once a second.
_SILENT_AFTER = timedelta(seconds=3)
# What another worker is at may take as long as a model call (resiliency/llm.yaml), and its result a moment to be saved.
_ELSEWHERE_SECONDS, _LOOK_SECONDS = 90.0, (0.25, 1.0)

_MINE = WORKERS.alias("mine")
_THIS_ATTEMPT = and_(
    EXECUTIONS.c.task_id == bindparam("the_task"),
    EXECUTIONS.c.execution_id == bindparam("the_step"),
    EXECUTIONS.c.event_id == bindparam("the_event"),
)
_THIS = and_(_THIS_ATTEMPT, EXECUTIONS.c.number == bindparam("the_number"))
_LAST = select(func.max(EXECUTIONS.c.number)).where(_THIS_ATTEMPT)
_BEGIN = insert(EXECUTIONS)
_WITHDRAW = delete(EXECUTIONS).where(_THIS)
_LOSE = update(EXECUTIONS).where(_THIS).values(lost_at=bindparam("lost"))
# Another one that is at it: beside another sidecar, since one sidecar hands a step to one worker at a time.
_ELSEWHERE = (
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
    """One attempt, as the sidecar hands it out: whose task, which step (`taskExecutionId`), which schedule."""

    task_id: str
    execution_id: str
    event_id: int
    step: str

    @property
    def key(self) -> dict[str, Any]:
        """The parameters that name it in a statement."""
        return {"the_task": self.task_id, "the_step": self.execution_id, "the_event": self.event_id}


class Executions:
    """The executions of this worker. For one event loop."""

    def __init__(
        self,
        writer: Writer,
        worker: str,
        clock: Callable[[], datetime],
        completed: Callable[[StepAttempt], str | None] = lambda _: None,
    ) -> None:
        """`completed` reads from Dapr's history what an attempt came to, as it was delivered; None when it has not."""
        self._completed = completed
        self._writer = writer
        self._worker = worker
        self._clock = clock
        self._running: set[tuple[StepAttempt, int]] = set()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def begun(self, attempt: StepAttempt) -> AsyncIterator[str | None]:
        """Around the work on an attempt; with the result that the history has, when there is nothing left to work.
        Raises StepSetAside, StepOver, SQLAlchemyError."""
        number = await self._begin(attempt)
        if number > 1:
            # While it is looked at or waits it must not look begun: another one may cost this worker its life.
            await self._writer.write(lambda connection: run(connection, _WITHDRAW, _numbered(attempt, number)))
            if (result := await self._known_or_awaited(attempt)) is not None:
                yield result
                return
            if number > SUSPECT_AFTER and await self._dead(attempt) >= SUSPECT_AFTER:
                async with self._alone:
                    await self._judge(attempt)
                    async with self._noted(attempt, await self._begin(attempt)):
                        yield None
                return
            number = await self._begin(attempt)
        async with self._noted(attempt, number):
            yield None

    async def lose(self, only: StepAttempt | None = None) -> None:
        """Notes that the sidecar is gone that waits for what is running, or for one attempt: nobody takes it."""
        gone = [key for key in self._running if only in (None, key[0])]
        lost = [_numbered(*key) | {"lost": microseconds(self._clock())} for key in gone]
        if not lost:
            return
        try:
            await self._writer.write(lambda connection: [run(connection, _LOSE, call) for call in lost])
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("ledger: %d lost executions are not noted: %s", len(lost), type(error).__name__)

    async def _known_or_awaited(self, attempt: StepAttempt) -> str | None:
        """The result in the history, once there is one, as long as another worker may bring it."""
        until, pause = time.monotonic() + _ELSEWHERE_SECONDS, _LOOK_SECONDS[0]
        while True:
            elsewhere = await self._elsewhere(attempt)  # before the history is asked: its result may come in between
            result = await self._known(attempt)
            if result is not None or not elsewhere or time.monotonic() > until:
                return result
            if pause == _LOOK_SECONDS[0]:
                log.info(
                    "task %s: another worker is at step %s; its result is waited for", attempt.task_id, attempt.step
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS[1])

    async def _elsewhere(self, attempt: StepAttempt) -> bool:
        values = attempt.key | {"this_worker": self._worker, "alive": microseconds(self._clock() - _SILENT_AFTER)}
        return bool(await self._writer.write(lambda connection: run(connection, _ELSEWHERE, values).scalar_one()))

    async def _known(self, attempt: StepAttempt) -> str | None:
        """The result in the history. One that cannot be read now decides nothing: working a step twice is harmless."""
        try:
            return await asyncio.to_thread(self._completed, attempt)
        except StepOver:
            raise
        except RefundAgentError as error:
            words = "begun again without knowing whether it is completed"
            log.warning("task %s: step %s: %s: %s", attempt.task_id, attempt.step, words, error)
            return None

    async def _judge(self, attempt: StepAttempt) -> None:
        dead = await self._dead(attempt)
        if dead >= SET_ASIDE_AFTER:
            log.error("task %s: step %s is set aside: %d workers died at it", attempt.task_id, attempt.step, dead)
            raise StepSetAside(attempt.task_id, attempt.step, dead)
        log.warning("task %s: step %s has lost %d workers; it is worked alone", attempt.task_id, attempt.step, dead)

    @asynccontextmanager
    async def _noted(self, attempt: StepAttempt, number: int) -> AsyncIterator[None]:
        self._running.add((attempt, number))
        try:
            yield
        finally:
            self._running.discard((attempt, number))

    async def _begin(self, attempt: StepAttempt) -> int:
        """Writes the row and returns its number: 1 for the first execution of an attempt."""
        row = {
            "task_id": attempt.task_id,
            "execution_id": attempt.execution_id,
            "event_id": attempt.event_id,
            "worker": self._worker,
            "started_at": microseconds(self._clock()),
        }
        try:
            return await self._writer.write(lambda connection: _begun(connection, attempt, row))
        except IntegrityError:  # another worker began it in this very moment
            return await self._writer.write(lambda connection: _begun(connection, attempt, row))

    async def _dead(self, attempt: StepAttempt) -> int:
        """How many other workers began it and went away without a word."""
        values = attempt.key | {"this_worker": self._worker}
        return int(await self._writer.write(lambda connection: run(connection, _DEAD, values).scalar_one()))


def _begun(connection: Connection, attempt: StepAttempt, row: dict[str, Any]) -> int:
    number = int(run(connection, _LAST, attempt.key).scalar_one() or 0) + 1
    run(connection, _BEGIN, row | {"number": number})
    if number > 1:
        look_again(connection, attempt.task_id)  # a sidecar that stood still may hand out what has long ended
    return number


def _numbered(attempt: StepAttempt, number: int) -> dict[str, Any]:
    return attempt.key | {"the_number": number}


# This life of the worker: it says that it lives, and closes what workers that live no more have left open.

# The last beat of a worker that was killed says when, about: how long its work lay idle is known to a second.
BEAT_SECONDS = 1.0
_NAME_CHARACTERS, _VERSION_CHARACTERS = 200, 40
# No step takes longer.
_LONGEST = timedelta(minutes=15)


class Heartbeat:
    """One life of one worker process, from `begin` to `end`."""

    def __init__(self, writer: Writer, clock: Callable[[], datetime], sidecar: str = "", daprd: str = "") -> None:
        """`sidecar`: the machine and the address of the one beside it; others have another. `daprd`: its version."""
        self._sidecar = sidecar[:_NAME_CHARACTERS]
        self._daprd = daprd[:_VERSION_CHARACTERS]
        self.worker = str(uuid.uuid4())
        self._writer = writer
        self._clock = clock
        self._stop = threading.Event()
        self._seen: datetime | None = None
        self._thread = threading.Thread(target=self._beats, name="heartbeat", daemon=True)

    def begin(self) -> None:
        """Writes itself into the ledger and beats from now on."""
        now = self._clock()
        beside = {"sidecar": self._sidecar, "daprd": self._daprd}
        row = {"worker": self.worker, "started_at": now, "seen_at": now} | beside
        self._writer.run(lambda connection: connection.execute(insert(WORKERS).values(row)).rowcount)
        self._thread.start()

    def end(self) -> None:
        """Stops beating, and says so: whoever goes without this was killed."""
        self._stop.set()
        self._thread.join()
        now = self._clock()
        stopped = update(WORKERS).where(WORKERS.c.worker == self.worker).values(seen_at=now, stopped_at=now)
        try:
            self._writer.run(lambda connection: connection.execute(stopped).rowcount)
        except LedgerGone as error:
            log.error("%s", error)

    def beat(self) -> int:
        """Says that it lives and sweeps; returns how many model calls of dead workers were closed."""
        now = self._clock()
        closed = self._writer.run(lambda connection: _beat(connection, self.worker, now, self._seen))
        self._seen = now
        return closed

    def _beats(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                closed = self.beat()
            except (SQLAlchemyError, LedgerGone) as error:
                log.warning("ledger: no heartbeat: %s; tried again in %.0f s", type(error).__name__, BEAT_SECONDS)
                continue
            if closed:
                log.warning("%d model calls of workers that are gone are closed as interrupted", closed)


def _beat(connection: Connection, worker: str, now: datetime, before: datetime | None) -> int:
    if before is not None and now - before >= GONE_AFTER:
        _come_back(connection, worker, before)
    connection.execute(update(WORKERS).where(WORKERS.c.worker == worker).values(seen_at=now))
    living = select(WORKERS.c.worker).where(WORKERS.c.seen_at > now - GONE_AFTER)
    left = update(MODEL_CALLS).where(MODEL_CALLS.c.state == CallState.STARTED, MODEL_CALLS.c.worker.not_in(living))
    return connection.execute(left.values(state=CallState.INTERRUPTED, error="the worker is gone")).rowcount


def _come_back(connection: Connection, worker: str, since: datetime) -> None:
    """Others took this worker for gone, and recorded so what it was at when it began to stand still."""
    at_work = select(EXECUTIONS.c.task_id).where(
        EXECUTIONS.c.worker == worker, EXECUTIONS.c.started_at > since - _LONGEST
    )
    again = update(TICKETS).where(TICKETS.c.task_id.in_(at_work), TICKETS.c.recorded).values(recorded=False)
    connection.execute(again)
