"""How the ledger's database is opened: SQLite by default, PostgreSQL by URL; its tables are made by migrations."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, ExceptionContext, Insert, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.pool import ConnectionPoolEntry

from app.config.private_files import private_file
from app.domain.errors import ConfigurationError, LedgerGone, LedgerTrouble, LedgerUnavailable
from app.domain.texts import is_storable, storable
from app.ledger.store.migrations import upgrade

# What is wrong with the ledger's database, in our own words: every edge turns its errors into these.
#
# An error that says that a statement of ours is wrong is none of them: it stays a fault of the program.

_LOCKED = (LedgerTrouble.LOCKED, "another process holds the ledger; end what else has it open, and try again")
_READ_ONLY = (
    LedgerTrouble.READ_ONLY,
    "the ledger cannot be written; check the owner and the rights of its file, and the mount",
)
_FULL = (
    LedgerTrouble.DISK_FULL,
    "the ledger's disk is full; make room, and try again: nothing that was accepted is lost",
)
_BROKEN_DISK = (
    LedgerTrouble.DISK_FAILS,
    "the ledger's disk fails; look into the kernel's log, and keep a copy of the file",
)
_DAMAGED = (LedgerTrouble.DAMAGED, "the ledger's file is damaged; restore it, then run `refund-agent ledger rebuild`")
_AWAY = (
    LedgerTrouble.AWAY,
    "the ledger's database does not answer; check REFUND_AGENT_LEDGER_URL and that the server is up",
)
_CROWDED = (
    LedgerTrouble.CROWDED,
    "the ledger's database has no connection left; raise its limit, or end what else uses it",
)
_STANDBY = (LedgerTrouble.READ_ONLY, "the ledger's database is read-only: a standby, or told so; name the primary")

_OF_SQLITE: Mapping[int, tuple[LedgerTrouble, str]] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _BROKEN_DISK,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
# By the first characters of PostgreSQL's state: the longest that fits.
_OF_POSTGRESQL: Mapping[str, tuple[LedgerTrouble, str]] = {
    "53100": _FULL,
    "53300": _CROWDED,
    "53": _AWAY,
    "25006": _STANDBY,
    "55P03": _LOCKED,
    "40": _LOCKED,
    "58": _BROKEN_DISK,
    "XX": _DAMAGED,
    "57": _AWAY,
    "08": _AWAY,
}


def trouble(error: BaseException) -> LedgerUnavailable | None:
    """The trouble that an error of SQLAlchemy tells of; None for a fault of ours, and for any other error."""
    if isinstance(error, NoConnection):
        return LedgerUnavailable(*_CROWDED)
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        known = None if code is None else _OF_SQLITE.get(code & 0xFF)  # the rest of the number says it more exactly
        return LedgerUnavailable(*known) if known else None
    state = str(getattr(error.orig, "sqlstate", None) or "")
    fitting = next((_OF_POSTGRESQL[state[:size]] for size in (5, 2) if state[:size] in _OF_POSTGRESQL), None)
    if fitting is None and (error.connection_invalidated or (not state and _is_of_connection(error))):
        fitting = _AWAY
    return LedgerUnavailable(*fitting) if fitting else None


def _is_of_connection(error: DBAPIError) -> bool:
    """A server that was never reached gives no state."""
    return isinstance(error, OperationalError | InterfaceError)


# WAL lets readers go on beside the one writer; a busy writer is waited for, not failed on. What is committed outlives
# any crash of a process; a power cut may take the last moments, which is what PostgreSQL is for.
_BUSY_SECONDS = 30.0
_SQLITE = (f"busy_timeout={_BUSY_SECONDS * 1000:.0f}", "synchronous=NORMAL", "foreign_keys=ON")

# A statement that is prepared on the server belongs to one connection of its own, which a pooler between the two hands
# to somebody else after each transaction (docs/operations.md). The rest is so that a server that is gone without a word
# is noticed within a minute and not within a quarter of an hour.
_PSYCOPG: dict[str, Any] = {
    "prepare_threshold": None,
    "connect_timeout": 5,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_READ_ONLY_STATE = "25006"
_REMEDIES = {
    "42501": (
        "the agent makes and changes its tables by itself: grant its role CREATE and USAGE on the schema and all on "
        "the tables in it, or run `refund-agent ledger migrate` as the role that owns them"
    ),
    _READ_ONLY_STATE: "this server is a standby: name the primary, or all of them with target_session_attrs=read-write",
}


def insert_or_ignore(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves a row which is there already as it is; tell by the row count. Hand the row to `execute`:
    a statement that is composed anew each time costs more than running it."""
    return _insert_or_ignore(connection.dialect.name, table)


@lru_cache
def _insert_or_ignore(dialect: str, table: Table) -> Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Without being told to, SQLAlchemy does not ask psycopg for the count, and says -1.
    return insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def connect(url: str) -> Engine:
    """Opens the database at `url` and brings its tables up to date. Raises ConfigurationError."""
    try:
        with contextlib.ExitStack() as when_it_fails:
            where = make_url(url)
            only = _only_to_read(where)
            given = {"creator": only} if only else {"connect_args": _connect_args(where)}
            engine = create_engine(where, pool_pre_ping=not _is_sqlite(where), **given)
            when_it_fails.callback(engine.dispose)
            store_any_text(engine)
            if engine.dialect.name == "sqlite":
                if where.database not in (None, "", ":memory:") and not only:
                    private_file(Path(where.database))  # SQLite gives its other files the same mode
                tune_sqlite(engine, *_SQLITE)
                if not only:
                    _write_ahead(engine)
                stay_with_the_file(engine)
            else:
                event.listen(engine, "handle_error", _leave_a_standby)
                from app.ledger.store.server_deadline import (
                    give_up_in_time,  # psycopg is loaded where there is a server
                )

                give_up_in_time(engine)
                _refuse_other_encodings(engine)
            upgrade(engine)
            when_it_fails.pop_all()
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(f"ledger {_without_password(url)}: {reason}; {_remedy(error)}") from None
    return engine


def answers(engine: Engine) -> None:
    """Asks the database the smallest question there is. Raises what SQLAlchemy raises when it does not answer."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")


def is_passing(error: BaseException) -> bool:
    """Whether a database server was away, or stood in its own way: the same may succeed in a moment. A SQLite file is
    waited for already."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    return isinstance(error, OperationalError) or error.connection_invalidated


def _leave_a_standby(context: ExceptionContext) -> None:
    """A server that has handed over goes on answering the connections that it has: they are given up, as if it had
    gone."""
    if _state(context.original_exception) == _READ_ONLY_STATE:
        context.is_disconnect = True


def _state(error: object) -> str:
    """PostgreSQL's five characters for what went wrong; empty when it gave none."""
    return str(getattr(error, "sqlstate", None) or "")


def _remedy(error: Exception) -> str:
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return "check REFUND_AGENT_LEDGER_URL, and that the file and its folder are yours to read and write"
    return _REMEDIES.get(_state(original), "check REFUND_AGENT_LEDGER_URL and that the database is up")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _only_to_read(given: URL) -> Callable[[], sqlite3.Connection] | None:
    """How to open a SQLite file that this user may only read, such as a copy on a read-only disk; None for another."""
    path = str(given.database or "")
    if not _is_sqlite(given) or not os.path.isfile(path):
        return None
    if all(os.access(place, os.W_OK) for place in (path, os.path.dirname(os.path.abspath(path)))):
        return None
    # Beside a writer the log tells what the file does not have yet; where there is no log, there is no writer.
    how = "mode=ro" if os.path.exists(f"{path}-wal") else "immutable=1"
    name = f"file:{quote(os.path.abspath(path))}?{how}"
    return lambda: sqlite3.connect(name, uri=True, check_same_thread=False)


def _connect_args(given: URL) -> dict[str, Any]:
    """How psycopg connects: what the URL itself says comes first."""
    if given.get_driver_name() != "psycopg":
        return {}
    return {name: value for name, value in _PSYCOPG.items() if name not in given.query}


def _refuse_other_encodings(engine: Engine) -> None:
    with engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise ConfigurationError(
            f"ledger {_without_password(engine.url.render_as_string())}: the database's encoding is {encoding}, which "
            "cannot hold every customer's text; make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def _write_ahead(engine: Engine) -> None:
    """Switches the file to WAL, which stays with it. Of two that do so at once SQLite refuses one, whatever its busy
    time-out: each holds what the other waits for."""
    limit = time.monotonic() + _BUSY_SECONDS
    while not _switched(engine):
        if time.monotonic() > limit:
            raise ConfigurationError(f"the ledger stayed locked for {_BUSY_SECONDS:.0f} s; end what else has it open")
        time.sleep(0.01)


def _switched(engine: Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return True
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
        return False


def stay_with_the_file(engine: Engine) -> None:
    """Has each transaction of a SQLite engine raise LedgerGone when the file's name leads to another file by now, or to
    none: SQLite goes on with the file that it has open, and what it commits there is gone with the process."""
    path = engine.url.database
    if path in (None, "", ":memory:"):
        return
    opened = _identity(path)

    def look(_connection: Connection) -> None:
        if _identity(path) != opened:
            raise LedgerGone(path)

    event.listen(engine, "begin", look)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def tune_sqlite(engine: Engine, *pragmas: str) -> None:
    """Has each of the engine's connections begin with these pragmas."""

    def tune(connection: Any, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", tune)


def store_any_text(engine: Engine) -> None:
    """Has the engine write no character that one of the stores would refuse, wherever the text came from."""
    event.listen(engine, "before_cursor_execute", _storable_values, retval=True)


def _storable_values(
    _connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    rows = isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple | dict)
    return statement, [_each_storable(row) for row in values] if rows else _each_storable(values)


def _each_storable(values: Any) -> Any:
    """The values of one statement, by name or by place; the same object when there is nothing to replace."""
    by_name = isinstance(values, dict)
    given = values.values() if by_name else values or ()
    if all(type(value) is not str or is_storable(value) for value in given):
        return values
    kept = [storable(value) if type(value) is str else value for value in given]
    return dict(zip(values, kept, strict=True)) if by_name else tuple(kept)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
