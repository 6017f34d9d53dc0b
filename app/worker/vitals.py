"""What a platform's probes are told: does the worker's event loop move, is its stream up, does the ledger answer?

The answers lie ready: a thread of its own looks once a second, so a probe waits for nobody. Nothing is asked of the
sidecar: what it lacks is no fault of this process, and starting this one again would not mend it.
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
# A workflow turn may keep the loop for half a minute, and is then set aside: longer is a fault.
LOOP_SECONDS = 60.0
# A database that hangs is noticed long before its own time limits.
LEDGER_SECONDS = 10.0


class Loop(Protocol):
    """What is asked of the worker; each answers at once, from any thread."""

    moved_at: float  # monotonic seconds
    connected: bool  # whether the sidecar sends it work


class Vitals:
    """The looks at one process. `ledger` raises, or does not come back, when the database does not answer."""

    def __init__(self, loop: Loop, ledger: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._ledger = ledger
        self._clock = clock
        self._answered_at = clock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="vitals", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; a look that waits for the database is left to itself."""
        self._end.set()

    def alive(self) -> None:
        """Raises NotReady when the event loop stands still: only a new process helps then."""
        still = self._clock() - self._loop.moved_at
        if still > LOOP_SECONDS:
            raise NotReady(f"the worker's event loop has not moved for {still:.0f} s; this process must begin anew")

    def ready(self) -> None:
        """Raises NotReady when no work can be done here now."""
        self.alive()
        if not self._loop.connected:
            raise NotReady("the worker has no stream of work from its sidecar; it connects again by itself")
        silent = self._clock() - self._answered_at
        if silent > LEDGER_SECONDS:
            raise NotReady(f"the ledger has not answered for {silent:.0f} s; it is asked again every second")

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            try:
                self._ledger()
            except Exception as error:  # whatever it is, the next look may find it mended
                log.debug("the ledger does not answer: %s", type(error).__name__)
            else:
                self._answered_at = self._clock()
