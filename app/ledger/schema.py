"""The tables, and how a database is opened. SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
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

MODEL_CALLS = Table(
    "model_calls",
    METADATA,
    Column("call_id", String(36), primary_key=True),
    Column("execution_id", String(36), nullable=False),  # Dapr's taskExecutionId: names the step
    Column("turn", Integer, nullable=False),
    Column("task_id", String(100), nullable=False),
    Column("tenant", String(31), nullable=False),
    Column("stage", String(32), nullable=False),
    Column("component", String(100), nullable=False),
    Column("model", String(200)),
    Column("request_digest", String(64), nullable=False),
    Column("prompt_version", String(12), nullable=False),
    Column("worker", String(36), nullable=False),
    Column("state", String(11), nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    # What an interrupted or failed call may have cost at most, in tokens.
    Column("reserve_input", Integer, nullable=False),
    Column("reserve_output", Integer, nullable=False),
    # What was used, as far as it is known, and how it is known.
    Column("input_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("output_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("known", String(10), nullable=False),
    Column("finish_reason", String(32)),
    Column("error", Text),
    Column("answer", Text),  # JSON; for a step that is executed again, under the texts' retention time
    Index("ix_model_calls_step", "execution_id", "turn"),
    Index("ix_model_calls_task", "task_id"),
    Index("ix_model_calls_state_worker", "state", "worker"),
)
# Two executions of one step at once may both ask, but only one answer settles the step.
Index(
    "uq_model_calls_settled",
    MODEL_CALLS.c.execution_id,
    MODEL_CALLS.c.turn,
    unique=True,
    sqlite_where=MODEL_CALLS.c.state == "settled",
    postgresql_where=MODEL_CALLS.c.state == "settled",
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("worker", String(36), primary_key=True),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)


def insert_or_ignore(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves a row which is there already as it is; tell by the row count."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


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
    """WAL lets readers go on beside the one writer; a busy writer is waited for, not failed on. What is committed
    outlives any crash of a process; a power cut may take the last moments, which is what PostgreSQL is for."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
