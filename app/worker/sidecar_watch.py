"""Watches the sidecar: counts the requests that it made to models on its own.

What daprd 1.18 tells: `dapr_resiliency_activations_total{policy="retry",target="Conversation_llm"}` goes up by one for
each call that it asks again, at the first failure and never more (its retry helper reports once); with `maxRetries: 1`
that is exactly the requests it made on its own, with more a lower bound. `policy="timeout"` counts calls with a
time-out likewise, `policy="circuitbreaker"` changes of state; `dapr_resiliency_count` and
`dapr_component_conversation_count` count calls, refused ones too. A call that the breaker refuses at once never left;
it is not asked again and no activation. One whose announced retry the breaker refuses has counted, and is taken off
here (`retries.py`). No series counts requests to the provider: those are the calls that left plus these retries.
The page is made when it is asked for, so it has no delay; a restarted daprd begins at zero.

A daprd with the defect `LOST_METRICS` shows no page any more once it has read a Configuration or a Resiliency again:
what it asks again from then on is unknown, and written so, until it is started again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.dapr.daprd import has_lost_metrics
from app.dapr.workarounds import LOST_METRICS, Workaround
from app.domain.errors import LedgerGone
from app.ledger.store.writer import Writer
from app.worker import metric_windows, sidecar_metrics
from app.worker.metric_windows import End, Found, Gap, Reading
from app.worker.retry_rows import Written, write_end, write_gap, write_window
from app.worker.sidecar_metrics import LOST
from app.worker.sidecar_retries import ONE_RETRY, RetryPolicy

log = logging.getLogger(__name__)

# Longer than any first pause, so that a window is written once it is known which announced retries were refused;
# short, so that few calls run in one. A look costs daprd and the worker 3 ms each, for a page of 300 kB.
LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_SILENT = "it does not answer; check that it runs, and its HTTP and metrics ports"
_LOST = (
    f"it shows no metrics since it read its configuration again (Dapr below {LOST_METRICS.mended}): start the sidecar "
    "again; on Kubernetes `kubectl rollout restart`"
)
# A refusal that one window has counted is no candidate of another after this.
_REMEMBERED = timedelta(seconds=60)


class SidecarWatch:
    """Looks at one worker's sidecar every two seconds, from `start` to `stop`. What a look finds is written at the
    next one."""

    def __init__(
        self,
        writer: Writer,
        worker: str,
        clock: Callable[[], datetime],
        changed: Callable[[str], None],
        *,
        metrics: str,
        policy: RetryPolicy = ONE_RETRY,
        needs: Callable[[Workaround], bool] = lambda _: True,
    ) -> None:
        """`worker`: whose calls go through this sidecar. `changed` is told each task whose calls were allocated
        retries, after the commit. `metrics`: daprd's address, like http://127.0.0.1:9510. `needs` says which of its
        defects it may have."""
        self._writer = writer
        self._worker = worker
        self._clock = clock
        self._changed = changed
        self._metrics = metrics
        self._policy = policy
        self._needs = needs
        self._client = httpx.Client(timeout=_ANSWER_SECONDS, trust_env=False)
        self._began = clock()
        self._last: Reading | None = None
        self._found: list[Found] = []
        self._in_vain: dict[str, datetime] = {}
        self._uncounted = ""
        self._told_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._looks, name="sidecar-watch", daemon=True)

    def start(self) -> None:
        """Looks once, then every two seconds. A sidecar that does not answer is a warning."""
        self._began = self._clock()
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Looks for the last time and writes everything; to be called when no model call runs any more, and before
        the writer is closed."""
        self._told_to_stop.set()
        if self._thread.is_alive():
            self._thread.join()
        before = self._last
        self.look()
        self._write([*self._found, *self._end(answered=self._last is not before)])
        self._client.close()

    def counts(self) -> bool:
        """Whether the last look told what the sidecar repeats."""
        return not self._uncounted

    def look(self) -> None:
        """Writes what the last look found, and looks."""
        due, self._found = self._found, []
        reading = self._reading()
        self._found = self._write(due)
        if reading is None:
            return
        if reading.page is LOST:
            self._found += metric_windows.lost(self._last, self._began, reading.at)
        else:
            self._found += metric_windows.between(self._last, reading) if self._last else metric_windows.first(reading)
        self._last = reading

    def _looks(self) -> None:
        while not self._told_to_stop.wait(LOOK_SECONDS):
            self.look()

    def _reading(self) -> Reading | None:
        """The sidecar's page; None without an answer."""
        try:
            answer = self._get(self._metrics)
            lost = answer.is_error and has_lost_metrics(answer.text) and self._needs(LOST_METRICS)
            page = LOST if lost else sidecar_metrics.parse(answer.raise_for_status().text)
        except (httpx.HTTPError, ValueError) as error:
            self._say(f"{type(error).__name__}: {_SILENT}")
            return None
        self._say(_LOST if lost else "")
        return Reading(self._clock(), page)

    def _say(self, uncounted: str) -> None:
        """Logs why requests are not counted, once, and when they are counted again."""
        if uncounted and uncounted != self._uncounted:
            log.warning("sidecar: requests that it repeats are not counted: %s", uncounted)
        elif self._uncounted and not uncounted:
            log.info("sidecar: requests that it repeats are counted again")
        self._uncounted = uncounted

    def _get(self, url: str) -> httpx.Response:
        # Uncompressed: over loopback, packing takes longer than sending.
        return self._client.get(url, headers={"Accept-Encoding": "identity"})

    def _write(self, due: list[Found]) -> list[Found]:
        """Writes in order; returns what the ledger did not take, for the next time."""
        for number, found in enumerate(due):
            try:
                self._written(self._writer.run(self._operation(found)), found)
            except (SQLAlchemyError, LedgerGone) as error:
                log.warning("ledger: the sidecar's retries wait to be written: %s", type(error).__name__)
                return due[number:]
        return []

    def _operation(self, found: Found) -> Callable[[Connection], Written]:
        match found:
            case Gap() as gap:
                return lambda connection: write_gap(connection, gap, self._worker)
            case End() as end:
                return lambda connection: write_end(connection, end)
            case window:
                now, in_vain = self._clock(), frozenset(self._in_vain)
                return lambda connection: write_window(connection, window, self._worker, self._policy, now, in_vain)

    def _written(self, written: Written, found: Found) -> None:
        recent = {call: at for call, at in self._in_vain.items() if at > found.to_at - _REMEMBERED}
        self._in_vain = recent | dict.fromkeys(written.in_vain, found.to_at)
        for task_id in sorted(written.tasks):
            self._changed(task_id)

    def _end(self, *, answered: bool) -> list[Found]:
        """What closes the record: all is counted until here, or the time since the last answer is not known."""
        if self._last is None or not answered:
            return [Gap(self._last.at if self._last else self._began, self._clock())]
        return [End(name, self._last.at) for name, count in sorted(self._last.page.retried.items()) if count]
