"""How many may wait for the sidecar at once, and for how long: the others are told so, and their threads stay free.

A sidecar that stands still, or whose scheduler is gone, takes a call and does not answer. Without a bound, each thread
of the web would wait for it, and what needs no sidecar (the ledger, the health check) would wait behind them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from app.domain.deadline import left
from app.domain.errors import Unreachable


class Silence(Unreachable):
    """The sidecar took a call and did not answer in time: what came of it is not known."""


class WaitingLine:
    """At most `most` calls of one kind at once. Once one was not answered, only one at a time finds out whether that is
    still so; the others are told at once. Thread-safe."""

    def __init__(self, most: int, *, wait_seconds: float = 0.5) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._scout = threading.Lock()
        self._wait = wait_seconds
        self._silent = False

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Around one call, which raises Silence when it gets no answer. Raises Unreachable when there is no place."""
        with self._scouting() if self._silent else self._waiting():
            silent = False
            try:
                yield
            except Silence:
                silent = True
                raise
            finally:
                self._silent = silent

    @contextlib.contextmanager
    def _scouting(self) -> Iterator[None]:
        if not self._scout.acquire(blocking=False):
            raise Unreachable("the Dapr sidecar has not answered lately; try again in some seconds")
        try:
            yield
        finally:
            self._scout.release()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._free.acquire(timeout=left(self._wait)):
            raise Unreachable("too many requests wait for the Dapr sidecar already; try again in some seconds")
        try:
            yield
        finally:
            self._free.release()
