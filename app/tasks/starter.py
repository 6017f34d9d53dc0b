"""Starts the tasks of tickets that were accepted while the engine was away, as soon as it is back."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import RefundAgentError

log = logging.getLogger(__name__)

# While all is well it looks this often for what nobody told it of: tickets of a process that died.
_LOOK_SECONDS = 30.0
# How long it waits after the first attempt that failed; doubles up to the longest.
_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 15.0


class Waiting(Protocol):
    """Where tickets wait for their start."""

    someone_waits: threading.Event

    def start_waiting(self) -> int:
        """Starts some, and returns how many. Raises Unreachable when none could be started."""


class Starter:
    """A part of the agent, in a thread of its own."""

    def __init__(
        self,
        service: Waiting,
        *,
        look_seconds: float = _LOOK_SECONDS,
        first_seconds: float = _FIRST_SECONDS,
        longest_seconds: float = _LONGEST_SECONDS,
    ) -> None:
        self._service = service
        self._look, self._first, self._longest = look_seconds, first_seconds, longest_seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="starter", daemon=True)

    def start(self) -> None:
        """Begins, with what was left by the process before."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; a start that is in work ends by its own deadline."""
        self._end.set()
        self._service.someone_waits.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._first
        while not self._end.is_set():
            self._service.someone_waits.clear()
            try:
                started = self._service.start_waiting()
            except (RefundAgentError, SQLAlchemyError) as error:
                log.warning(
                    "accepted tickets still wait for their start: %s; again in %.1f s", type(error).__name__, pause
                )
                self._end.wait(pause)
                pause = min(2 * pause, self._longest)
                continue
            pause = self._first
            if started:
                log.info("%d tasks of tickets that had to wait are started", started)
                continue
            self._service.someone_waits.wait(self._look)
            self._end.wait(self._first if self._service.someone_waits.is_set() else 0)
