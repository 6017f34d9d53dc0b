"""The tables of the record: what the projector makes of history and journal, and can make again.

Charges are only ever added. What a report sums is kept summed as well, by day and by everything that a report may ask
for, in the same transaction; a sum of quantities at one price is exact, and so is the money made of it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, SmallInteger, String, Table, Text, UniqueConstraint

from app.ledger.store.columns import METADATA, Instant

TASKS = Table(
    "tasks",
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=True),  # short, since many rows name it
    Column("task_id", String(100), nullable=False, unique=True),
    Column("tenant", String(31), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("workflow", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("execution_id", String(64), nullable=False),
    Column("rerun_of", String(100)),
    Column("status", String(10), nullable=False),
    Column("outcome", String(16), nullable=False),  # empty: none yet
    Column("category", String(16), nullable=False),
    Column("order_id", String(64)),
    Column("refund_amount", String(16)),
    Column("refund_currency", String(3)),
    Column("refund_id", String(64)),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("projected_at", Instant, nullable=False),
    Column("parts", String(200), nullable=False),  # JSON: microseconds by part
    Column("turns", Integer, nullable=False),
    Column("events", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("trace_parent", String(55), nullable=False),
    Index("ix_tasks_ended", "ended_at", "started_at", "tenant"),
    sqlite_autoincrement=True,  # never the number of a task that is gone
)

STEPS = Table(
    "steps",
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=False),
    Column("step", SmallInteger, primary_key=True, autoincrement=False),
    Column("execution_id", String(36), nullable=False),
    Column("name", String(64), nullable=False),
    Column("stage", String(64), nullable=False),
    Column("tool", String(64), nullable=False),
    Column("active_us", BigInteger, nullable=False),
    Column("lost_us", BigInteger, nullable=False),
    Column("writes", Integer, nullable=False),
    Column("answered_by", String(10)),
    sqlite_with_rowid=False,
)

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=False),
    Column("step", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("event_id", Integer, nullable=False),
    Column("scheduled_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("outcome", String(10), nullable=False),
    Column("error", Text, nullable=False),
    sqlite_with_rowid=False,
)

FAILURES = Table(
    "failures",  # work that was lost with its worker or sidecar, and attempts that failed
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=False),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("step", SmallInteger, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("execution", SmallInteger, nullable=False),  # 0: not known which
    Column("at", Instant, nullable=False),
    Column("resumed_at", Instant),  # NULL: not taken up again
    Column("kind", String(11), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("worker", String(36), nullable=False),  # empty: not known
    Index("ix_failures_at", "at"),
    sqlite_with_rowid=False,
)

PAUSES = Table(
    "pauses",
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=False),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("part", String(10), nullable=False),
    Column("label", String(64), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant, nullable=False),
    sqlite_with_rowid=False,
)

PRICES = Table(
    "prices",  # every price that a charge was made at
    METADATA,
    Column("price_no", Integer, primary_key=True, autoincrement=True),
    Column("line", String(16), nullable=False),
    Column("book_digest", String(64), nullable=False),
    Column("price_id", String(200), nullable=False),  # empty: unpriced
    Column("mode", String(10), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("unit_price", String(40), nullable=False),
    Column("list_unit_price", String(40), nullable=False),
    Column("provider", String(100), nullable=False),
    Column("component", String(100), nullable=False),
    Column("model", String(200), nullable=False),
    UniqueConstraint(
        "line",
        "book_digest",
        "price_id",
        "mode",
        "currency",
        "unit_price",
        "list_unit_price",
        "provider",
        "component",
        "model",
        name="uq_prices",
    ),
)

CHARGES = Table(
    "charges",
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=False),
    Column("step", SmallInteger, primary_key=True, autoincrement=False),  # 0: the workflow itself
    Column("turn", SmallInteger, primary_key=True, autoincrement=False),  # 0: no model call's
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("line", String(16), primary_key=True),
    Column("rerun", Boolean, primary_key=True),
    Column("correction", SmallInteger, primary_key=True, autoincrement=False),  # 0: the first; n corrects n - 1
    Column("price_no", Integer, nullable=False),
    Column("quantity", BigInteger),  # see `columns.whole`; NULL: not known
    Column("known", String(10), nullable=False),
    Column("at", Instant, nullable=False),
    sqlite_with_rowid=False,
)

DAILY_COSTS = Table(
    "daily_costs",
    METADATA,
    Column("day", Integer, primary_key=True, autoincrement=False),  # since 1970-01-01, UTC
    Column("tenant", String(31), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("outcome", String(16), primary_key=True),
    Column("stage", String(64), primary_key=True),
    Column("step", String(64), primary_key=True),
    Column("tool", String(64), primary_key=True),
    Column("price_no", Integer, primary_key=True, autoincrement=False),
    Column("known", String(10), primary_key=True),
    Column("rerun", Boolean, primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("charges", Integer, nullable=False),
    sqlite_with_rowid=False,
)

PRICE_BOOKS = Table(
    "price_books",  # every book that a charge was made by, to make it again
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", Text, nullable=False),
    Column("first_used_at", Instant, nullable=False),
)
