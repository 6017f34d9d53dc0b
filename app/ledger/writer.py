"""One thread writes; what waits at the same moment is committed together. Each caller returns after its own commit.

A commit costs a round trip whatever is in it, and SQLite has one writer anyway: under load many operations share one
commit. An event loop hands its own to that thread as well; but a SQLite file that nobody else is writing to it writes
itself, since that takes a fifth of a millisecond, and handing it over and back takes longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from app.ledger.database import tune_sqlite

Result = TypeVar("Result")
Operation = Callable[[Connection], Any]

_TOGETHER = 256


class Writer:
    """Commits operations in order of arrival. An operation must tolerate being run a second time: when one of a group
    raises, the group is rolled back and each is run alone, so that only the culprit fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own = _for_the_loop(engine)
        self._waiting: queue.SimpleQueue[tuple[Operation, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[Connection], Result]) -> Future[Result]:
        """Queues an operation; the future has its result once it is committed, or its error."""
        future: Future[Result] = Future()
        self._waiting.put((operation, future))
        return future

    def run(self, operation: Callable[[Connection], Result]) -> Result:
        """The same, waited for; not for an event loop's thread."""
        return self.submit(operation).result()

    async def write(self, operation: Callable[[Connection], Result]) -> Result:
        """The same for a task of an event loop; one loop only."""
        if self._own is not None:
            try:
                with self._own.begin() as connection:
                    return operation(connection)
            except OperationalError as error:
                if "locked" not in str(error.orig):
                    raise
        return await asyncio.wrap_future(self.submit(operation))

    def close(self) -> None:
        """Writes what waits, then ends the thread."""
        self._waiting.put(None)
        self._thread.join()
        if self._own is not None:
            self._own.dispose()

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)

    def _next_group(self) -> list[tuple[Operation, Future[Any]]]:
        """Waits for one operation and takes what has queued up behind it; empty when told to close."""
        first = self._waiting.get()
        group = [first] if first else []
        while group and len(group) < _TOGETHER:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)  # close after this group
                break
            group.append(following)
        return group

    def _commit(self, group: list[tuple[Operation, Future[Any]]]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [operation(connection) for operation, _ in group]
        except Exception as error:
            self._alone(group, error)
            return
        for (_, future), result in zip(group, results, strict=True):
            with contextlib.suppress(InvalidStateError):  # nobody waits any more; what was paid is written all the same
                future.set_result(result)

    def _alone(self, group: list[tuple[Operation, Future[Any]]], error: Exception) -> None:
        if len(group) == 1:
            with contextlib.suppress(InvalidStateError):
                group[0][1].set_exception(error)
            return
        for each in group:
            self._commit([each])


def _for_the_loop(engine: Engine) -> Engine | None:
    """A connection to the same SQLite file that never waits: neither for another writer nor for the disk, since it
    leaves it to the thread to move what was written from the log into the file. None for any other database."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    own = create_engine(engine.url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    tune_sqlite(own, "busy_timeout=0", "synchronous=NORMAL", "wal_autocheckpoint=0")
    return own
