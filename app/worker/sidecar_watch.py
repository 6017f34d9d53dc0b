"""Counts the requests that the sidecar repeated to models on its own: rows of SIDECAR_RETRIES.

The product's own configuration repeats none, and `doctor` fails where another one does. What is repeated nevertheless
is counted for a component and a time; which call it was for, daprd does not say. A count of NULL means that the counter
was lost in that time. daprd makes its metrics page when it is asked for, so it has no delay; a restarted daprd begins
at zero. A daprd with the defect `LOST_METRICS` shows no page any more once it has read a Configuration or a Resiliency
again: what it repeats from then on is unknown, and recorded so, until it is started again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.dapr.daprd import has_lost_metrics
from app.dapr.workarounds import LOST_METRICS, Workaround
from app.domain.errors import LedgerGone
from app.ledger.store.tables import MODEL_CALLS, SIDECAR_RETRIES, WORKERS
from app.ledger.store.writer import Writer
from app.worker import sidecar_metrics
from app.worker.sidecar_metrics import Gap, Reading, Repeated

log = logging.getLogger(__name__)

# Short, so that few calls run between two looks. A look costs daprd and the worker 3 ms each, for a page of 300 kB.
LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_SILENT = "it does not answer; check that it runs, and its HTTP and metrics ports"
_LOST = (
    f"it shows no metrics since it reloaded its configuration (Dapr below {LOST_METRICS.fixed_in}); restart the "
    "sidecar; on Kubernetes with `kubectl rollout restart`"
)
# Dapr repeats a call for a quarter of an hour at most: calls that began earlier are not looked for.
_LONGEST_CALL = timedelta(minutes=15)
# A living worker is at most this much older than its last heartbeat says, and some.
_BEAT = timedelta(seconds=10)


class SidecarWatch:
    """Reads the metrics of one worker's sidecar every two seconds, from `start` to `stop`, and writes what it finds."""

    def __init__(
        self,
        writer: Writer,
        worker: str,
        clock: Callable[[], datetime],
        *,
        metrics: str,
        needs: Callable[[Workaround], bool] = lambda _: True,
    ) -> None:
        """`worker`: whose calls go through this sidecar. `metrics`: daprd's address, like http://127.0.0.1:9510.
        `needs`: which of Dapr's defects it may have."""
        self._writer = writer
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._needs = needs
        self._client = httpx.Client(timeout=_ANSWER_SECONDS, trust_env=False)
        self._began = clock()
        self._last: Reading | None = None
        self._unwritten: list[Repeated | Gap] = []
        self._uncounted = ""
        self._told_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._looks, name="sidecar-watch", daemon=True)

    def start(self) -> None:
        """Looks once, then every two seconds. A sidecar that does not answer is a warning."""
        self._began = self._clock()
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Looks for the last time; to be called when no model call runs any more, and before the writer is closed.
        Rows with a count of 0 tell the next worker at this sidecar that nothing is lost until then."""
        self._told_to_stop.set()
        if self._thread.is_alive():
            self._thread.join()
        before = self._last
        self.look()
        if self._last is None or self._last is before:
            self._write([Gap(before.at if before else self._began, self._clock())])
        else:
            at, counts = self._last.at, sorted(self._last.retried.items())
            self._write([Repeated(component, at, at, 0) for component, count in counts if count])
        self._client.close()

    def counts(self) -> bool:
        """Whether the last look told what the sidecar repeats."""
        return not self._uncounted

    def look(self) -> None:
        """Reads the metrics, and writes what happened since the last look."""
        found: list[Repeated | Gap] = []
        try:
            # Uncompressed: over loopback, packing takes longer than sending.
            answer = self._client.get(self._metrics, headers={"Accept-Encoding": "identity"})
            at = self._clock()
            if answer.is_error and has_lost_metrics(answer.text) and self._needs(LOST_METRICS):
                self._last, found = sidecar_metrics.lost(self._last, self._began, at)
                self._warn(_LOST)
            else:
                reading = sidecar_metrics.parse(answer.raise_for_status().text, at)
                last, self._last = self._last, reading
                found = sidecar_metrics.between(last, reading) if last else sidecar_metrics.first(reading)
                self._warn("")
        except (httpx.HTTPError, ValueError) as error:
            self._warn(f"{type(error).__name__}: {_SILENT}")
        self._write(found)

    def _looks(self) -> None:
        while not self._told_to_stop.wait(LOOK_SECONDS):
            self.look()

    def _warn(self, uncounted: str) -> None:
        """Logs why requests are not counted, once, and when they are counted again."""
        if uncounted and uncounted != self._uncounted:
            log.warning("sidecar: requests that it repeats are not counted: %s", uncounted)
        elif self._uncounted and not uncounted:
            log.info("sidecar: requests that it repeats are counted again")
        self._uncounted = uncounted

    def _write(self, found: list[Repeated | Gap]) -> None:
        """Writes in order; what the ledger does not take waits for the next time."""
        due = self._unwritten = [*self._unwritten, *found]
        try:
            while due:
                self._writer.run(lambda connection: write(connection, due[0], self._worker))
                del due[0]
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning("ledger: the sidecar's retries wait to be written: %s", type(error).__name__)


def write(connection: Connection, found: Repeated | Gap, worker: str) -> None:
    """Writes a count of the sidecar of `worker`, or a gap: for each component that had a call under way in it."""
    if isinstance(found, Repeated):
        _add(connection, found.component, found.from_at, found.to_at, found.count)
        return
    whose = MODEL_CALLS.c.worker != worker if found.predecessors else MODEL_CALLS.c.worker == worker
    calls = select(MODEL_CALLS.c.component).distinct().where(whose).order_by("component")
    for component in connection.execute(calls.where(_ran(found.from_at, found.to_at))).scalars().all():
        since = found.from_at
        if found.predecessors:
            written = select(func.max(SIDECAR_RETRIES.c.to_at)).where(SIDECAR_RETRIES.c.component == component)
            since = max(since, connection.execute(written).scalar_one() or since)
        theirs = calls.where(MODEL_CALLS.c.component == component, _ran(since, found.to_at))
        if since < found.to_at and connection.execute(theirs).first():
            _add_gap(connection, component, since, found.to_at)


def _ran(since: datetime, until: datetime) -> ColumnElement[bool]:
    """Calls under way at some moment of a time. One that nobody saw end was under way while its worker lived."""
    began = MODEL_CALLS.c.started_at.between(since - _LONGEST_CALL, until)
    lived = exists().where(WORKERS.c.worker == MODEL_CALLS.c.worker, WORKERS.c.seen_at > since - _BEAT)
    return and_(began, or_(MODEL_CALLS.c.ended_at > since, and_(MODEL_CALLS.c.ended_at.is_(None), lived)))


def _add_gap(connection: Connection, component: str, since: datetime, until: datetime) -> None:
    """A gap that goes on is one row, however many looks it lasts."""
    this = and_(SIDECAR_RETRIES.c.component == component, SIDECAR_RETRIES.c["count"].is_(None))
    longer = update(SIDECAR_RETRIES).where(this, SIDECAR_RETRIES.c.to_at == since).values(to_at=until)
    if not connection.execute(longer).rowcount:
        _add(connection, component, since, until, None)


def _add(connection: Connection, component: str, since: datetime, until: datetime, count: int | None) -> None:
    row = {"component": component, "from_at": since, "to_at": until, "count": count}
    connection.execute(insert(SIDECAR_RETRIES).values(row))
