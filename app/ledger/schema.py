"""The tables, and how a database is opened. SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import ConfigurationError

METADATA = MetaData()

TICKETS = Table(
    "tickets",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),  # the order of arrival, for pages
    Column("task_id", String(100), nullable=False, unique=True),
    Column("tenant", String(31), nullable=False),
    Column("ticket_id", String(64), nullable=False),
    Column("customer_id", String(64), nullable=False),
    Column("order_id", String(64)),
    Column("digest", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("started", Boolean, nullable=False),
    Index("ix_tickets_tenant_sequence", "tenant", "sequence"),
    Index("ix_tickets_started", "started"),
)

REPLIES = Table(
    "replies",
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("text", Text, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
)


def connect(url: str) -> Engine:
    """Opens the database at `url` and makes the tables it lacks. Raises ConfigurationError."""
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _tune_sqlite)
        METADATA.create_all(engine)
    except (SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(
            f"ledger {_without_password(url)}: {reason}; check REFUND_AGENT_LEDGER_URL and that the database is up"
        ) from None
    return engine


def _tune_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    """WAL lets readers go on beside the one writer; a busy writer is waited for, not failed on."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
