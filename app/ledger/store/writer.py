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
from app.ledger.store.database import is_transient, stay_with_the_file, store_any_text, tune_sqlite
from app.ledger.store.tables import Instant, microseconds

# Frequent statements bypass SQLAlchemy's execution, which converts every value of every row and takes longer than the
# database: `run` and `insert_many` compile a statement once and pass its text to the driver. Values must be what the
# driver takes: instants as `tables.microseconds`, texts as plain `str`.

Statement = Select[Any] | Insert | Update | Delete


def insert_many(connection: Connection, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    """Runs an INSERT of all columns of its table for each row. Modifies the rows: instants become microseconds."""
    if not rows:
        return
    text, instants, parameters = _compile_insert(statement, connection.dialect)
    for name in instants:
        for row in rows:
            row[name] = microseconds(row[name])
    connection.exec_driver_sql(text, list(map(parameters, rows)))


def run(connection: Connection, statement: Statement, values: dict[str, Any]) -> CursorResult[Any]:
    """Runs one statement with these values for its parameters; columns of an INSERT without a value become NULL."""
    text, names, defaults = _compile(statement, connection.dialect)
    parameters = defaults | values
    return connection.exec_driver_sql(text, tuple(parameters[name] for name in names) if names else parameters)


@lru_cache(maxsize=64)
def _compile(statement: Statement, dialect: Dialect) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """The statement's text, the names of its parameters in order (empty if the driver takes them by name), and default
    values: NULL for the columns of an INSERT, the statement's constants otherwise."""
    columns = list(statement.table.columns.keys()) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    params = compiled.params.items() if columns is None else dict.fromkeys(columns).items()
    defaults = {name: str(value) if isinstance(value, str) else value for name, value in params}
    return str(compiled), tuple(compiled.positiontup or ()), defaults


@lru_cache(maxsize=64)
def _compile_insert(
    statement: Insert, dialect: Dialect
) -> tuple[str, tuple[str, ...], Callable[[dict[str, Any]], Any]]:
    """The statement's text, the columns that are instants, and a function that makes the driver's parameters of a
    row."""
    text, names, _ = _compile(statement, dialect)
    instants = tuple(column.name for column in statement.table.columns if isinstance(column.type, Instant))
    return text, instants, itemgetter(*names) if names else lambda row: row


Result = TypeVar("Result")
Operation = Callable[[Connection], Any]

_LARGEST_GROUP = 256
# How long a database server may be away before a caller gets the error. Steps wait longer than HTTP requests: if the
# write of a step is lost, the step runs again and may pay for a model call again.
_PATIENCE_SECONDS, _STEPS_PATIENCE_SECONDS = 5.0, 60.0
_PAUSE_SECONDS = 0.2
# How long the server may take for one transaction, which blocks the thread and all other callers.
_SILENT_SECONDS = 20.0
# How long an HTTP request waits for its write; SQLite itself would wait longer for another process's lock.
_SOON_SECONDS = 8.0
_NOT_SOON = (
    f"the ledger has not saved the request within {_SOON_SECONDS:.0f} s: another process holds it, or its disk or "
    "server is slow; send the same request again"
)


@dataclass(frozen=True, eq=False)
class _Job:
    """A queued operation, the future of its result, and until when (`time.monotonic`) it may be retried."""

    operation: Operation
    future: Future[Any]
    until: float


class Writer:
    """Commits operations in order of arrival. An operation must tolerate being run a second time: if one of a group
    raises, the group is rolled back and each operation is run separately, so that only that one fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop_engine = _loop_engine(engine)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(
        self, operation: Callable[[Connection], Result], patience_seconds: float = _PATIENCE_SECONDS
    ) -> Future[Result]:
        """Queues an operation. The future has its result once it is committed, or its error. `patience_seconds`: how
        long the operation is retried while the server is away."""
        future: Future[Result] = Future()
        self._waiting.put(_Job(operation, future, time.monotonic() + patience_seconds))
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
        if self._loop_engine is not None:
            try:
                with self._loop_engine.begin() as connection:
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
        if self._loop_engine is not None:
            self._loop_engine.dispose()

    def _run(self) -> None:
        left: Sequence[_Job] = ()
        while group := self._next_group(left):
            left = self._commit(group)
            if left:
                time.sleep(_PAUSE_SECONDS)

    def _next_group(self, left: Sequence[_Job]) -> list[_Job]:
        """The operations that are left of the previous group, or else the next one (waiting for it), and those queued
        behind it. Empty once closed."""
        first = None if left else self._waiting.get()
        group = [first] if first else list(left)
        while group and len(group) < _LARGEST_GROUP:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)  # close after this group
                break
            group.append(following)
        return group

    def _commit(self, group: Sequence[_Job]) -> list[_Job]:
        """Commits a group; returns the operations to retry."""
        committing = False
        try:
            with within(_SILENT_SECONDS), self._engine.begin() as connection:
                results = [job.operation(connection) for job in group]
                committing = True
        except Exception as error:
            if is_transient(error):
                return self._retryable(group, error, unknown=committing)
            if len(group) == 1:
                _fail(group[0], error)
                return []
            return [left for job in group for left in self._commit([job])]
        for job, result in zip(group, results, strict=True):
            with contextlib.suppress(InvalidStateError):  # the caller has cancelled; the operation is committed anyway
                job.future.set_result(result)
        return []

    def _retryable(self, group: Sequence[_Job], error: Exception, *, unknown: bool) -> list[_Job]:
        """The operations whose callers have patience left; the others fail. With `unknown` (the error came at the
        commit) all fail: they may have been committed, and only their callers can find out."""
        now = time.monotonic()
        left = [] if unknown or self._closing else [job for job in group if job.until > now]
        for job in group:
            if job not in left:
                _fail(job, error)
        return left


def _fail(job: _Job, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):
        job.future.set_exception(error)


def _loop_engine(engine: Engine) -> Engine | None:
    """An engine for the event loop: one connection to the same SQLite file that waits neither for another writer nor
    for a checkpoint of the write-ahead log, which is left to the thread. None for any other database."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    loop_engine = create_engine(engine.url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    store_any_text(loop_engine)
    tune_sqlite(loop_engine, "busy_timeout=0", "synchronous=NORMAL", "wal_autocheckpoint=0")
    stay_with_the_file(loop_engine)
    return loop_engine
