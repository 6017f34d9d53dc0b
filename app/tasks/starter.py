"""Starts the tasks of tickets that were accepted while the workflow engine was down, once it answers again."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import RefundAgentError

log = logging.getLogger(__name__)

# How often it looks for tickets without being woken, such as those that a dead process accepted but did not start.
_LOOK_SECONDS = 30.0
# The pause after the first failed attempt; it doubles up to the longest.
_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 15.0


class Waiting(Protocol):
    """The part of the task service that the starter uses. `someone_waits` wakes it."""

    someone_waits: threading.Event

    def start_waiting(self) -> int:
        """Starts waiting tasks and returns how many. Raises RefundAgentError when none could be started."""


class Starter:
    """Calls `start_waiting` in a separate thread, when woken and every `look_seconds`."""

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
        """Starts the thread, which first takes what the previous process left."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread; a start in progress ends by its own deadline."""
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
                    "accepted tickets still wait for their start: %s; next try in %.1f s", type(error).__name__, pause
                )
                self._end.wait(pause)
                pause = min(2 * pause, self._longest)
                continue
            pause = self._first
            if started:
                log.info("started %d tasks whose tickets were waiting", started)
                continue
            self._service.someone_waits.wait(self._look)
            self._end.wait(self._first if self._service.someone_waits.is_set() else 0)
