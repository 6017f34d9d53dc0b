"""How the ledger's database is opened: SQLite by default, PostgreSQL by URL; its tables are made by migrations."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import ConfigurationError
from app.ledger.migrations import upgrade

# WAL lets readers go on beside the one writer; a busy writer is waited for, not failed on. What is committed outlives
# any crash of a process; a power cut may take the last moments, which is what PostgreSQL is for.
_SQLITE = ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON")


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
            upgrade(engine)
            when_it_fails.pop_all()
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(
            f"ledger {_without_password(url)}: {reason}; check REFUND_AGENT_LEDGER_URL and that the database is up"
        ) from None
    return engine


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
