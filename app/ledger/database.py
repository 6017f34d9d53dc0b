"""How the ledger's database is opened: SQLite by default, PostgreSQL by URL; its tables are made by migrations."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import ConfigurationError
from app.ledger.migrations import upgrade

# WAL lets readers go on beside the one writer; a busy writer is waited for, not failed on. What is committed outlives
# any crash of a process; a power cut may take the last moments, which is what PostgreSQL is for.
_BUSY_SECONDS = 30.0
_SQLITE = (f"busy_timeout={_BUSY_SECONDS * 1000:.0f}", "synchronous=NORMAL", "foreign_keys=ON")


def insert_or_ignore(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves a row which is there already as it is; tell by the row count. Hand the row to `execute`:
    a statement that is composed anew each time costs more than running it."""
    return _insert_or_ignore(connection.dialect.name, table)


@lru_cache
def _insert_or_ignore(dialect: str, table: Table) -> Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def connect(url: str) -> Engine:
    """Opens the database at `url` and brings its tables up to date. Raises ConfigurationError."""
    try:
        with contextlib.ExitStack() as when_it_fails:
            engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
            when_it_fails.callback(engine.dispose)
            if engine.dialect.name == "sqlite":
                tune_sqlite(engine, *_SQLITE)
                _write_ahead(engine)
            upgrade(engine)
            when_it_fails.pop_all()
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(
            f"ledger {_without_password(url)}: {reason}; check REFUND_AGENT_LEDGER_URL and that the database is up"
        ) from None
    return engine


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


def tune_sqlite(engine: Engine, *pragmas: str) -> None:
    """Has each of the engine's connections begin with these pragmas."""

    def tune(connection: Any, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", tune)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
