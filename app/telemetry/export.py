"""Sends the spans of ended tasks to an OTLP collector, from a thread of its own.

The record's writer only hands the record over, which takes a microsecond and never waits or fails. A collector that is
down is one warning: its tasks wait, up to a number, and go when it is back. What is lost in the end is counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from urllib.parse import urlsplit

from app.ledger.store.task_record import TaskRecord
from app.telemetry.encoding import Encoding
from app.telemetry.sending import Sender
from app.telemetry.spans import Texts, plan

log = logging.getLogger(__name__)

_PATH = "/v1/traces"
_TASKS_AT_ONCE = 50  # a few hundred spans and KB
_GATHER_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LAST_SECONDS = 0.5  # for a request that was cut off at the end
# After this many failures one after the other a batch is given up: it may be the batch that the collector refuses.
_TRIES = 8


class Traces:
    """Observes records and exports their spans."""

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        version: str,
        texts: Texts | None = None,
        capacity: int = 1_000,
    ) -> None:
        """`endpoint` is the collector's base URL (`http://localhost:4318`) or the full one. `texts` gives the answers,
        None keeps them out. At most `capacity` tasks wait; then the oldest goes."""
        self._sender = Sender(traces_url(endpoint))
        self._shown = _without_secrets(traces_url(endpoint))
        self._encoding = Encoding(service, version)
        self._texts = texts
        self._capacity = capacity
        self._waiting: deque[TaskRecord] = deque()
        self._in_flight: list[TaskRecord] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failures = 0
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    @property
    def dropped(self) -> int:
        """Tasks whose spans were given up."""
        return self._dropped

    def start(self) -> None:
        """Begins to export."""
        self._thread.start()

    def observe(self, record: TaskRecord) -> None:
        """Takes the record of an ended task; any thread. After `stop` it is only counted."""
        with self._changed:
            if self._stopping.is_set():
                self._dropped += 1
                return
            self._waiting.append(record)
            self._trim()
            self._changed.notify()

    def stop(self, seconds: float = 5.0) -> None:
        """Exports what waits, for about as long as that; what is left then is dropped."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        self._join(seconds)
        self._sender.close()
        self._join(_LAST_SECONDS)
        with self._changed:
            left = len(self._waiting) + len(self._in_flight)
            self._dropped += left
        if left:
            log.warning("traces: stopped before %s took the spans of the last %d tasks", self._shown, left)

    def _join(self, seconds: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while batch := self._next():
            reason = self._export(batch)
            if not reason:
                self._succeeded()
                continue
            self._failed(batch, reason)
            if self._stopping.is_set():
                return
            self._stopping.wait(min(2.0**self._failures, _LONGEST_PAUSE_SECONDS))

    def _next(self) -> list[TaskRecord]:
        """The oldest records; none when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._stopping.is_set())
        self._stopping.wait(0.0 if len(self._waiting) >= _TASKS_AT_ONCE else _GATHER_SECONDS)
        with self._changed:
            count = min(len(self._waiting), _TASKS_AT_ONCE)
            self._in_flight = [self._waiting.popleft() for _ in range(count)]
            return self._in_flight

    def _export(self, batch: list[TaskRecord]) -> str:
        """Sends the spans of the batch. Returns why it was not taken; empty when it was."""
        request = self._encoding.request()
        for record in tuple(batch):
            try:
                request.add(plan(record, self._texts))
            except Exception as error:  # a record that cannot be told costs its own spans and no others'
                batch.remove(record)
                self._dropped += 1
                log.warning("traces: task %s has no spans: %s", record.task_id, type(error).__name__)
        return self._sender.send(request.body())

    def _succeeded(self) -> None:
        self._in_flight = []
        if self._failures:
            log.info("traces: %s takes spans again; %d tasks were dropped so far", self._shown, self._dropped)
        self._failures = 0

    def _failed(self, batch: list[TaskRecord], reason: str) -> None:
        """Puts the batch back, or gives it up after too many tries."""
        self._failures += 1
        if self._failures == 1 and not self._stopping.is_set():
            log.warning(
                "traces: %s takes no spans (%s); up to %d tasks wait for it. Is REFUND_AGENT_OTLP_ENDPOINT right?",
                self._shown,
                reason,
                self._capacity,
            )
        with self._changed:
            self._in_flight = []
            if self._failures % _TRIES == 0:
                self._dropped += len(batch)
                return
            self._waiting.extendleft(reversed(batch))
            self._trim()

    def _trim(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self._dropped += 1


def traces_url(endpoint: str) -> str:
    """Where spans go, of a collector's base URL."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else path + _PATH).geturl()


def _without_secrets(url: str) -> str:
    """A URL may hold a password, and a query a key."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
