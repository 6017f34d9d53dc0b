"""Watches which cases the sandbox's books close, by reading their file beside it: cheap, the same for every side."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.problems import Problem
from sandbox.systems.app import BOOKS_FILE

GIVE_UP_SECONDS = 60.0


class CaseWatch:
    """Counts closed cases while it is entered, and wakes those who wait for one."""

    def __init__(self, sandbox_state: Path, poll_seconds: float = 0.02) -> None:
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self._poll_seconds = poll_seconds
        self._books = sqlite3.connect(f"file:{sandbox_state / BOOKS_FILE}?mode=ro", uri=True)
        (self._last,) = self._books.execute("SELECT coalesce(max(id), 0) FROM cases").fetchone()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, ticket_id: str) -> asyncio.Future[None]:
        """Done when the ticket's case is closed; ask before the ticket is submitted."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket_id] = future
        return future

    async def closed(self, future: asyncio.Future[None], what: str) -> None:
        """Waits for it. Raises Problem when it does not come."""
        try:
            await asyncio.wait_for(future, GIVE_UP_SECONDS)
        except TimeoutError:
            raise Problem(
                f"{what} was not closed within {GIVE_UP_SECONDS:.0f} s.", remedy="Look into the logs of the run."
            ) from None

    async def __aenter__(self) -> Self:
        """Begins to watch."""
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._books.close()

    def look(self) -> None:
        """Takes in what the books have by now."""
        query = "SELECT id, ticket_id, outcome FROM cases WHERE id > ? ORDER BY id"
        for number, ticket_id, outcome in self._books.execute(query, (self._last,)).fetchall():
            self._last = number
            self.count += 1
            self.outcomes[outcome] += 1
            future = self._waiting.pop(ticket_id, None)
            if future is not None and not future.done():
                future.set_result(None)

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(self._poll_seconds)
