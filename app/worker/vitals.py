"""Liveness and readiness of the worker: whether its event loop moves, its work stream is open and the ledger answers.

A background thread checks the ledger once a second, so a probe never waits. The sidecar's own health is not checked,
because restarting this process would not help it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from app.domain.errors import NotReady

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# A turn that holds the loop is set aside after half a minute, so a longer standstill is a fault.
LOOP_SECONDS = 60.0
# Shorter than the database's own time-outs, so that a hanging database is noticed early.
LEDGER_SECONDS = 10.0


class Loop(Protocol):
    """State of the worker's event loop. Its fields may be read from any thread."""

    moved_at: float  # monotonic seconds
    connected: bool  # whether the work stream from the sidecar is open


class Vitals:
    """The health of one worker process. `ledger` asks the database; it raises or hangs if the database does not
    answer."""

    def __init__(self, loop: Loop, ledger: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._ledger = ledger
        self._clock = clock
        self._answered_at = clock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="vitals", daemon=True)

    def start(self) -> None:
        """Starts the background check of the ledger."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the background check. Does not wait for a check that hangs."""
        self._end.set()

    def alive(self) -> None:
        """Raises NotReady if the event loop stands still; only a restart of the process helps then."""
        still = self._clock() - self._loop.moved_at
        if still > LOOP_SECONDS:
            raise NotReady(f"the worker's event loop has not moved for {still:.0f} s; restart this process")

    def ready(self) -> None:
        """Raises NotReady if this process cannot work now."""
        self.alive()
        if not self._loop.connected:
            raise NotReady("the worker has no stream of work from its sidecar; it reconnects automatically")
        silent = self._clock() - self._answered_at
        if silent > LEDGER_SECONDS:
            raise NotReady(f"the ledger has not answered for {silent:.0f} s; it is checked every second")

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            try:
                self._ledger()
            except Exception as error:  # any error counts as no answer; the next check may succeed
                log.debug("the ledger does not answer: %s", type(error).__name__)
            else:
                self._answered_at = self._clock()
