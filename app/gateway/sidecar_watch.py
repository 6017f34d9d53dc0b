"""Watches the sidecar: counts the requests that it made to models on its own, and knows its components' types.

What daprd 1.18 tells: `dapr_resiliency_activations_total{policy="retry",target="Conversation_llm"}` goes up by one for
each call that it asks again, at the first failure and never more (its retry helper reports once); with `maxRetries: 1`
that is exactly the requests it made on its own, with more a lower bound. `policy="timeout"` counts calls with a
time-out likewise, `policy="circuitbreaker"` changes of state. A call that the breaker refuses at once counts nowhere
but in `dapr_resiliency_count`, never left, and is not asked again; one whose announced retry it refuses has counted,
and is taken off here (`retries.py`). No series counts requests to the provider: those are the calls that left plus
these retries. The page is made when it is asked for, so it has no delay.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy.exc import SQLAlchemyError

from app.gateway import exposition
from app.gateway.exposition import Exposition
from app.gateway.retries import MODEL_RETRIES, RetryPolicy, Window
from app.gateway.retry_rows import Written, close_off, unwatched, write
from app.ledger.writer import Writer

log = logging.getLogger(__name__)

# Short enough that few calls run in one window; a look costs a few milliseconds (a page of 300 kB).
LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class _Reading:
    at: datetime
    page: Exposition

    def restarted_since(self, earlier: _Reading) -> bool:
        """Whether another daprd counts now: it started later, or has counted less."""
        if self.page.started != earlier.page.started:
            return True
        return any(self.page.retried.get(component, 0) < count for component, count in earlier.page.retried.items())

    def started_at(self) -> datetime:
        """When this daprd began to count; the reading's own time where that is not told."""
        return self.at if self.page.started is None else datetime.fromtimestamp(self.page.started, UTC)


class SidecarWatch:
    """Looks at one worker's sidecar every two seconds, from `start` to `stop`."""

    def __init__(
        self,
        writer: Writer,
        worker: str,
        clock: Callable[[], datetime],
        changed: Callable[[str], None],
        *,
        http: str,
        metrics: str,
        policy: RetryPolicy = MODEL_RETRIES,
    ) -> None:
        """`worker`: whose calls go through this sidecar. `changed` is told each task whose calls were allocated
        retries, after the commit. `http`, `metrics`: daprd's addresses, like http://127.0.0.1:3510."""
        self._writer = writer
        self._worker = worker
        self._clock = clock
        self._changed = changed
        self._http = http
        self._metrics = metrics
        self._policy = policy
        self._client = httpx.Client(timeout=_ANSWER_SECONDS, trust_env=False)
        self._types: Mapping[str, str] = {}
        self._last: _Reading | None = None
        self._open: list[Window] = []
        self._in_vain: dict[str, datetime] = {}
        self._warned: set[str] = set()
        self._told_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._looks, name="sidecar-watch", daemon=True)
