"""One thread commits all writes; operations that wait at the same time share a commit. Callers return after the commit.

A commit costs a round trip whatever it contains, and SQLite has a single writer anyway, so under load many operations
share one commit. An event loop also hands its operations to the thread, except when SQLite is not locked: then the loop
commits directly (0.2 ms, cheaper than handing the operation to the thread).

While a database server restarts or fails over, operations are retried until each caller's patience runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Delete, Engine, Insert, Select, Update, create_engine
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from app.domain.deadline import within
from app.domain.errors import LedgerTrouble, LedgerUnavailable
from app.ledger.store.database import is_passing, stay_with_the_file, store_any_text, tune_sqlite
from app.ledger.store.tables import Instant, microseconds

# Statements straight to the driver, where each counts: SQLAlchemy looks at every value of every row, which takes more
# time than the database. Here a statement is composed once and goes as text, with values as the driver takes them:
# instants as `columns.microseconds`, words as plain `str`.

Statement = Select[Any] | Insert | Update | Delete


def insert_many(connection: Connection, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    """Runs an INSERT of all of its table's columns for each row. The rows are used up: their instants are changed."""
    if not rows:
        return
    text, instants, arranged = _prepared(statement, connection.dialect)
    for name in instants:
        for row in rows:
            row[name] = microseconds(row[name])
    connection.exec_driver_sql(text, list(map(arranged, rows)))


def run(connection: Connection, statement: Statement, values: dict[str, Any]) -> CursorResult[Any]:
    """Runs one statement with these values for its parameters."""
    text, names, fixed = _composed(statement, connection.dialect)
    given = fixed | values
    return connection.exec_driver_sql(text, tuple(given[name] for name in names) if names else given)


@lru_cache(maxsize=64)
def _composed(statement: Statement, dialect: Dialect) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """The statement's text, its parameters in their order (none where they go by name), and those that are not given:
    what an INSERT is not told is NULL, and what a condition compares with stands in the statement."""
    columns = list(statement.table.columns.keys()) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    told = compiled.params.items() if columns is None else dict.fromkeys(columns).items()
    fixed = {name: str(value) if isinstance(value, str) else value for name, value in told}
    return str(compiled), tuple(compiled.positiontup or ()), fixed


@lru_cache(maxsize=64)
def _prepared(statement: Insert, dialect: Dialect) -> tuple[str, tuple[str, ...], Callable[[dict[str, Any]], Any]]:
    """The statement's text, the columns that are instants, and what the driver takes for a row."""
    text, names, _ = _composed(statement, dialect)
    instants = tuple(column.name for column in statement.table.columns if isinstance(column.type, Instant))
    return text, instants, itemgetter(*names) if names else _as_it_is


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row


Result = TypeVar("Result")
Operation = Callable[[Connection], Any]

_TOGETHER = 256
# How long a database server may be away before a caller gets the error. Steps wait longer than HTTP requests: if the
# write of a step is lost, the step runs again and may pay for a model call again.
_PATIENCE_SECONDS, _STEPS_PATIENCE_SECONDS = 5.0, 60.0
_PAUSE_SECONDS = 0.2
# How long the server may take over one transaction, which blocks the thread and all other callers.
_SILENT_SECONDS = 20.0
# SQLite waits longer than that for another process that writes.
_SOON_SECONDS = 8.0
_NOT_SOON = (
    f"the ledger has not taken it down within {_SOON_SECONDS:.0f} s: another process holds it, or its disk or server "
    "is slow; send the same again"
)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """An operation, the future of its result, and until when (`time.monotonic`) it may be retried."""

    operation: Operation
    future: Future[Any]
    until: float


class Writer:
    """Commits operations in order of arrival. An operation must tolerate being run a second time: when one of a group
    raises, the group is rolled back and each is run alone, so that only the culprit fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own = _for_the_loop(engine)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(
        self, operation: Callable[[Connection], Result], patience_seconds: float = _PATIENCE_SECONDS
    ) -> Future[Result]:
        """Queues an operation; the future has its result once it is committed, or its error. A server that is away is
        tried again for that long."""
        future: Future[Result] = Future()
        self._waiting.put(_Waiting(operation, future, time.monotonic() + patience_seconds))
        return future

    def run(self, operation: Callable[[Connection], Result]) -> Result:
        """Runs an operation and waits for its commit. Blocks, so never call it from an event loop."""
        return self.submit(operation).result()

    def run_soon(self, operation: Callable[[Connection], Result]) -> Result:
        """As `run`, for a caller that holds an HTTP request open. Raises LedgerUnavailable if it is not committed in
        time; it may still be committed later, so the operation must be safe to repeat."""
        try:
            return self.submit(operation).result(_SOON_SECONDS)
        except TimeoutError:
            raise LedgerUnavailable(LedgerTrouble.LOCKED, _NOT_SOON) from None

    async def write(self, operation: Callable[[Connection], Result]) -> Result:
        """As `run`, for coroutines. All of them must belong to the same event loop."""
        if self._own is not None:
            try:
                with self._own.begin() as connection:
                    return operation(connection)
            except OperationalError as error:
                if "locked" not in str(error.orig):
                    raise
        return await asyncio.wrap_future(self.submit(operation, _STEPS_PATIENCE_SECONDS))

    def close(self) -> None:
        """Commits what is queued and ends the thread, without retries if the server is away."""
        self._closing = True
        self._waiting.put(None)
        self._thread.join()
        if self._own is not None:
            self._own.dispose()

    def _run(self) -> None:
        left: Sequence[_Waiting] = ()
        while group := self._next_group(left):
            left = self._commit(group)
            if left:
                time.sleep(_PAUSE_SECONDS)

    def _next_group(self, left: Sequence[_Waiting]) -> list[_Waiting]:
        """What is left of the group before, or else waits for one operation; and what has queued up behind it. Empty
        when told to close."""
        first = None if left else self._waiting.get()
        group = [first] if first else list(left)
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

    def _commit(self, group: Sequence[_Waiting]) -> list[_Waiting]:
        """Commits them; returns those that are to be tried again."""
        committing = False
        try:
            with within(_SILENT_SECONDS), self._engine.begin() as connection:
                results = [job.operation(connection) for job in group]
                committing = True
        except Exception as error:
            if is_passing(error):
                return self._later(group, error, unknown=committing)
            return self._alone(group, error)
        for job, result in zip(group, results, strict=True):
            with contextlib.suppress(InvalidStateError):  # nobody waits any more; what was paid is written all the same
                job.future.set_result(result)
        return []

    def _later(self, group: Sequence[_Waiting], error: Exception, *, unknown: bool) -> list[_Waiting]:
        """Those whose callers have patience left. What was lost at its commit may have been written: only the caller
        knows how to find out."""
        now = time.monotonic()
        left = [] if unknown or self._closing else [job for job in group if job.until > now]
        for job in group:
            if job not in left:
                _fail(job, error)
        return left

    def _alone(self, group: Sequence[_Waiting], error: Exception) -> list[_Waiting]:
        if len(group) == 1:
            _fail(group[0], error)
            return []
        return [left for job in group for left in self._commit([job])]


def _fail(waiting: _Waiting, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):
        waiting.future.set_exception(error)


def _for_the_loop(engine: Engine) -> Engine | None:
    """A connection to the same SQLite file that never waits: neither for another writer nor for the disk, since it
    leaves it to the thread to move what was written from the log into the file. None for any other database."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    own = create_engine(engine.url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    store_any_text(own)
    tune_sqlite(own, "busy_timeout=0", "synchronous=NORMAL", "wal_autocheckpoint=0")
    stay_with_the_file(own)
    return own
