"""Opens the ledger's database (SQLite by default, PostgreSQL by URL), migrates it, and explains its errors."""

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

# Database errors are reported as these troubles. An error in one of our SQL statements is not: it is a bug.
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
    "the ledger's disk fails; check the kernel's log, and keep a copy of the file",
)
_DAMAGED = (LedgerTrouble.DAMAGED, "the ledger's file is damaged; restore it, then run `refund-agent ledger rebuild`")
_AWAY = (
    LedgerTrouble.UNREACHABLE,
    "the ledger's database does not answer; check REFUND_AGENT_LEDGER_URL and that the server is up",
)
_CROWDED = (
    LedgerTrouble.NO_CONNECTION_LEFT,
    "the ledger's database has no connection left; raise its limit, or end what else uses it",
)
_STANDBY = (
    LedgerTrouble.READ_ONLY,
    "the ledger's database is read-only: a standby, or configured so; name the primary",
)

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
# By PostgreSQL's SQLSTATE: all five characters, else the first two.
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
    """The trouble of the database behind an SQLAlchemy error; None for a bug of ours and for any other error."""
    if isinstance(error, NoConnection):
        return LedgerUnavailable(*_CROWDED)
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        known = None if code is None else _OF_SQLITE.get(code & 0xFF)  # the primary code of an extended one
        return LedgerUnavailable(*known) if known else None
    state = _state(error.orig)
    known = next((_OF_POSTGRESQL[state[:size]] for size in (5, 2) if state[:size] in _OF_POSTGRESQL), None)
    never_reached = not state and isinstance(error, OperationalError | InterfaceError)
    if known is None and (error.connection_invalidated or never_reached):
        known = _AWAY
    return LedgerUnavailable(*known) if known else None


# With WAL, readers and the one writer do not block each other. Commits survive any crash of a process; a power cut may
# lose the last moments. Who cannot accept that uses PostgreSQL.
_BUSY_SECONDS = 30.0
_SQLITE = (f"busy_timeout={_BUSY_SECONDS * 1000:.0f}", "synchronous=NORMAL", "foreign_keys=ON")

# No prepared statements: a pooler gives the server's connection to another client after each transaction
# (docs/operations.md). With the time-outs, a server that has vanished is noticed within a minute; by default it takes a
# quarter of an hour.
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
        "the agent creates and migrates its tables: grant its role CREATE and USAGE on the schema and all on "
        "the tables in it, or run `refund-agent ledger migrate` as the role that owns them"
    ),
    _READ_ONLY_STATE: "this server is a standby: name the primary, or all of them with target_session_attrs=read-write",
}


def insert_or_ignore(connection: Connection, table: Table) -> Insert:
    """An INSERT that does nothing if the row exists; the row count says which. The statement is cached: pass the row to
    `execute`, because composing a statement costs more than running it."""
    return _insert_or_ignore(connection.dialect.name, table)


@lru_cache
def _insert_or_ignore(dialect: str, table: Table) -> Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Without this option, SQLAlchemy reports -1 as psycopg's row count.
    return insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def connect(url: str) -> Engine:
    """Opens the database at `url` and migrates its tables. Raises ConfigurationError."""
    try:
        with contextlib.ExitStack() as on_error:
            parsed = make_url(url)
            read_only = _read_only_creator(parsed)
            options = {"creator": read_only} if read_only else {"connect_args": _connect_args(parsed)}
            engine = create_engine(parsed, pool_pre_ping=not _is_sqlite(parsed), **options)
            on_error.callback(engine.dispose)
            store_any_text(engine)
            if engine.dialect.name == "sqlite":
                if parsed.database not in (None, "", ":memory:") and not read_only:
                    private_file(Path(parsed.database))  # SQLite gives its other files the same mode
                tune_sqlite(engine, *_SQLITE)
                if not read_only:
                    _switch_to_wal(engine)
                stay_with_the_file(engine)
            else:
                event.listen(engine, "handle_error", _leave_standby)
                from app.ledger.store.server_deadline import (
                    give_up_in_time,
                )  # loads psycopg, which SQLite does not need

                give_up_in_time(engine)
                _refuse_other_encodings(engine)
            upgrade(engine)
            on_error.pop_all()
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(f"ledger {_without_password(url)}: {reason}; {_remedy(error)}") from None
    return engine


def ping(engine: Engine) -> None:
    """Sends the database a trivial query. Raises SQLAlchemy's error if it does not answer."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")


def is_transient(error: BaseException) -> bool:
    """Whether an error may be gone at the next try: a server was away, or reported a deadlock or a conflict. False for
    SQLite, whose busy time-out has waited already."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    return isinstance(error, OperationalError) or error.connection_invalidated


def _leave_standby(context: ExceptionContext) -> None:
    """Drops the connection to a server that has become a standby: it keeps answering its old connections."""
    if _state(context.original_exception) == _READ_ONLY_STATE:
        context.is_disconnect = True


def _state(error: object) -> str:
    """PostgreSQL's SQLSTATE (five characters); empty if the error has none."""
    return str(getattr(error, "sqlstate", None) or "")


def _remedy(error: Exception) -> str:
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return "check REFUND_AGENT_LEDGER_URL, and that the file and its folder are yours to read and write"
    return _REMEDIES.get(_state(original), "check REFUND_AGENT_LEDGER_URL and that the database is up")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _read_only_creator(url: URL) -> Callable[[], sqlite3.Connection] | None:
    """Opens a SQLite file that this user may only read, such as a copy on a read-only disk; None for any other
    database."""
    path = str(url.database or "")
    if not _is_sqlite(url) or not os.path.isfile(path):
        return None
    if all(os.access(place, os.W_OK) for place in (path, os.path.dirname(os.path.abspath(path)))):
        return None
    # A write-ahead log holds data that the file does not have yet; without one, nobody writes.
    option = "mode=ro" if os.path.exists(f"{path}-wal") else "immutable=1"
    name = f"file:{quote(os.path.abspath(path))}?{option}"
    return lambda: sqlite3.connect(name, uri=True, check_same_thread=False)


def _connect_args(url: URL) -> dict[str, Any]:
    """The options for psycopg; the URL's own options take precedence."""
    if url.get_driver_name() != "psycopg":
        return {}
    return {name: value for name, value in _PSYCOPG.items() if name not in url.query}


def _refuse_other_encodings(engine: Engine) -> None:
    with engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise ConfigurationError(
            f"ledger {_without_password(engine.url.render_as_string())}: the database's encoding is {encoding}, which "
            "cannot hold every customer's text; create one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def _switch_to_wal(engine: Engine) -> None:
    """Switches the file to WAL, permanently. If two processes do so at the same time, SQLite refuses one without its
    busy time-out, because they would block each other; so this retries. Raises ConfigurationError."""
    limit = time.monotonic() + _BUSY_SECONDS
    while not _try_wal(engine):
        if time.monotonic() > limit:
            raise ConfigurationError(f"the ledger stayed locked for {_BUSY_SECONDS:.0f} s; end what else has it open")
        time.sleep(0.01)


def _try_wal(engine: Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return True
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
        return False


def stay_with_the_file(engine: Engine) -> None:
    """Makes each transaction of a SQLite engine raise LedgerGone if the opened file was deleted or replaced: SQLite
    would keep writing to it, and those commits would be lost with the process."""
    path = engine.url.database
    if path in (None, "", ":memory:"):
        return
    opened = _identity(path)

    def check(_connection: Connection) -> None:
        if _identity(path) != opened:
            raise LedgerGone(path)

    event.listen(engine, "begin", check)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def tune_sqlite(engine: Engine, *pragmas: str) -> None:
    """Sets these pragmas on each new connection of the engine."""

    def tune(connection: Any, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", tune)


def store_any_text(engine: Engine) -> None:
    """Makes the engine replace characters in text values that one of the stores would refuse."""
    event.listen(engine, "before_cursor_execute", _storable_values, retval=True)


def _storable_values(
    _connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    rows = isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple | dict)
    return statement, [_storable_row(row) for row in values] if rows else _storable_row(values)


def _storable_row(values: Any) -> Any:
    """The values of one execution, by name or by position; the same object if nothing is to be replaced."""
    by_name = isinstance(values, dict)
    originals = values.values() if by_name else values or ()
    if all(type(value) is not str or is_storable(value) for value in originals):
        return values
    replaced = [storable(value) if type(value) is str else value for value in originals]
    return dict(zip(values, replaced, strict=True)) if by_name else tuple(replaced)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
