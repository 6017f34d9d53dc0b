"""Counts the model calls that the sidecar repeated, in the table SIDECAR_RETRIES.

The product's configuration repeats none, and `doctor` fails for a configuration that does. Repeats are counted by
component and time, because daprd does not show which call they belong to. A count of NULL means that the counter was
lost in that time: daprd counts from zero after a restart, and a daprd with the defect `LOST_METRICS` has no metrics
page from the reload of a Configuration or a Resiliency until its restart.
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

# Short, so that few calls run between two readings. A reading costs daprd and the worker 3 ms each (a page of 300 kB).
LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_SILENT = "it does not answer; check that it runs, and its HTTP and metrics ports"
_LOST = (
    f"it shows no metrics since it reloaded its configuration (Dapr below {LOST_METRICS.fixed_in}); restart the "
    "sidecar; on Kubernetes with `kubectl rollout restart`"
)
# daprd repeats a call for at most a quarter of an hour, so calls that started earlier need no check.
_LONGEST_CALL = timedelta(minutes=15)
# A living worker's last heartbeat is at most this old; it beats once a second.
_BEAT = timedelta(seconds=10)


class SidecarWatch:
    """Reads the metrics of a worker's sidecar every two seconds, from `start` to `stop`, and writes the repeats."""

    def __init__(
        self,
        writer: Writer,
        worker: str,
        clock: Callable[[], datetime],
        *,
        metrics: str,
        needs: Callable[[Workaround], bool] = lambda _: True,
    ) -> None:
        """`worker`: the worker whose calls go through this sidecar. `metrics`: address of daprd's metrics page, such as
        http://127.0.0.1:9510. `needs`: whether the running daprd needs a workaround."""
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
        self._thread = threading.Thread(target=self._run, name="sidecar-watch", daemon=True)

    def start(self) -> None:
        """Reads once now, then every two seconds. If the sidecar does not answer, a warning is logged."""
        self._began = self._clock()
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Reads for the last time. Call it when no model call runs any more and before the writer is closed. Rows with
        a count of 0 tell the next worker at this sidecar that no count is lost up to this time."""
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
        """Whether the last reading succeeded, so that repeats are being counted."""
        return not self._uncounted

    def look(self) -> None:
        """Reads the metrics and writes the repeats since the last reading."""
        changes: list[Repeated | Gap] = []
        try:
            # Uncompressed: over loopback, compressing takes longer than sending.
            answer = self._client.get(self._metrics, headers={"Accept-Encoding": "identity"})
            at = self._clock()
            if answer.is_error and has_lost_metrics(answer.text) and self._needs(LOST_METRICS):
                self._last, changes = sidecar_metrics.changes_without_metrics(self._last, self._began, at)
                self._warn(_LOST)
            else:
                reading = sidecar_metrics.parse(answer.raise_for_status().text, at)
                last, self._last = self._last, reading
                if last:
                    changes = sidecar_metrics.changes_between(last, reading)
                else:
                    changes = sidecar_metrics.gaps_at_start(reading)
                self._warn("")
        except (httpx.HTTPError, ValueError) as error:
            self._warn(f"{type(error).__name__}: {_SILENT}")
        self._write(changes)

    def _run(self) -> None:
        while not self._told_to_stop.wait(LOOK_SECONDS):
            self.look()

    def _warn(self, uncounted: str) -> None:
        """Logs each new reason why repeats are not counted, and when they are counted again. An empty reason: they are
        counted."""
        if uncounted and uncounted != self._uncounted:
            log.warning("sidecar: its retries of model calls are not counted: %s", uncounted)
        elif self._uncounted and not uncounted:
            log.info("sidecar: its retries of model calls are counted again")
        self._uncounted = uncounted

    def _write(self, changes: list[Repeated | Gap]) -> None:
        """Writes the changes in order. If the ledger fails, the rest is written at the next reading."""
        due = self._unwritten = [*self._unwritten, *changes]
        try:
            while due:
                self._writer.run(lambda connection: write(connection, due[0], self._worker))
                del due[0]
        except (SQLAlchemyError, LedgerGone) as error:
            log.warning(
                "ledger: the sidecar's retries are not written yet (%s); tried again in %.0f s",
                type(error).__name__,
                LOOK_SECONDS,
            )


def write(connection: Connection, change: Repeated | Gap, worker: str) -> None:
    """Writes one change of the sidecar of `worker`. A gap becomes a row for each component with a call under way."""
    if isinstance(change, Repeated):
        _insert(connection, change.component, change.from_at, change.to_at, change.count)
        return
    is_theirs = MODEL_CALLS.c.worker != worker if change.predecessors else MODEL_CALLS.c.worker == worker
    calls = select(MODEL_CALLS.c.component).distinct().where(is_theirs).order_by("component")
    for component in connection.execute(calls.where(_under_way(change.from_at, change.to_at))).scalars().all():
        since = change.from_at
        if change.predecessors:
            written = select(func.max(SIDECAR_RETRIES.c.to_at)).where(SIDECAR_RETRIES.c.component == component)
            since = max(since, connection.execute(written).scalar_one() or since)
        of_component = calls.where(MODEL_CALLS.c.component == component, _under_way(since, change.to_at))
        if since < change.to_at and connection.execute(of_component).first():
            _write_gap(connection, component, since, change.to_at)


def _under_way(since: datetime, until: datetime) -> ColumnElement[bool]:
    """Condition for calls under way at some moment of a time. A call without a recorded end counts while its worker
    lived."""
    started = MODEL_CALLS.c.started_at.between(since - _LONGEST_CALL, until)
    lived = exists().where(WORKERS.c.worker == MODEL_CALLS.c.worker, WORKERS.c.seen_at > since - _BEAT)
    return and_(started, or_(MODEL_CALLS.c.ended_at > since, and_(MODEL_CALLS.c.ended_at.is_(None), lived)))


def _write_gap(connection: Connection, component: str, since: datetime, until: datetime) -> None:
    """Writes a gap. A gap that continues the last one extends its row."""
    is_gap = and_(SIDECAR_RETRIES.c.component == component, SIDECAR_RETRIES.c["count"].is_(None))
    extended = update(SIDECAR_RETRIES).where(is_gap, SIDECAR_RETRIES.c.to_at == since).values(to_at=until)
    if not connection.execute(extended).rowcount:
        _insert(connection, component, since, until, None)


def _insert(connection: Connection, component: str, since: datetime, until: datetime, count: int | None) -> None:
    row = {"component": component, "from_at": since, "to_at": until, "count": count}
    connection.execute(insert(SIDECAR_RETRIES).values(row))
