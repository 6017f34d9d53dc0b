"""This life of the worker: it says that it lives, and closes what workers that live no more have left open."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.dapr.history.executions import GONE_AFTER
from app.domain.errors import LedgerGone
from app.domain.models import CallState
from app.ledger.store.tables import EXECUTIONS, MODEL_CALLS, TICKETS, WORKERS
from app.ledger.store.writer import Writer

log = logging.getLogger(__name__)

# The last beat of a worker that was killed says when, about: how long its work lay idle is known to a second.
BEAT_SECONDS = 1.0
_NAME_CHARACTERS = 200
# No step takes longer.
_LONGEST = timedelta(minutes=15)


class Heartbeat:
    """One life of one worker process, from `begin` to `end`."""

    def __init__(self, writer: Writer, clock: Callable[[], datetime], sidecar: str = "") -> None:
        """`sidecar`: the machine and the address of the one beside it; others have another."""
        self._sidecar = sidecar[:_NAME_CHARACTERS]
        self.worker = str(uuid.uuid4())
        self._writer = writer
        self._clock = clock
        self._stop = threading.Event()
        self._seen: datetime | None = None
        self._thread = threading.Thread(target=self._beats, name="incarnation", daemon=True)

    def begin(self) -> None:
        """Writes itself into the ledger and beats from now on."""
        now = self._clock()
        row = {"worker": self.worker, "started_at": now, "seen_at": now, "sidecar": self._sidecar}
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
        EXECUTIONS.c.worker == worker, EXECUTIONS.c.begun_at > since - _LONGEST
    )
    again = update(TICKETS).where(TICKETS.c.task_id.in_(at_work), TICKETS.c.recorded).values(recorded=False)
    connection.execute(again)
