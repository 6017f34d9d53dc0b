"""Has the agent notice which tokens are valid without being started again, as soon as the secret store says so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from app.domain.errors import RefundAgentError
from app.tasks.access import Access, Token

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class TokenWatch:
    """Reads the tokens every few seconds, from `start` to `stop`. Those that are known stay while the store does not
    answer, or holds what is none."""

    def __init__(self, access: Access, read: Callable[[], Iterable[Token]]) -> None:
        self._access = access
        self._read = read
        self._trouble = ""
        self._told_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._looks, name="token-watch", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the look that it is at."""
        self._told_to_stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Reads once. Says what is wrong once, and when it is over."""
        try:
            names = self._access.replace(self._read())
        except (RefundAgentError, OSError) as error:
            if str(error) != self._trouble:
                log.warning("tokens: those that were valid stay so: %s", error)
            self._trouble = str(error)
            return
        if names:
            log.info("tokens: changed: %s", ", ".join(sorted(names)))
        self._trouble = ""

    def _looks(self) -> None:
        while not self._told_to_stop.wait(LOOK_SECONDS):
            self.look()
