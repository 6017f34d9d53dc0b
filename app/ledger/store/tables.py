"""The ledger's tables: intake, the journal of model calls, the workers, and the record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from app.domain.models import TaskStatus
from app.pricing.charge_types import Unit

# What the tables share: their catalogue, and columns for instants and for exact quantities.

METADATA = MetaData()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A quantity is kept as a whole number of these, so that a database can sum it exactly: tokens and writes as they are,
# seconds to the microsecond, bytes as what a byte kept for a thousandth of a month is.
_DECIMALS = {Unit.TOKENS: 0, Unit.WRITES: 0, Unit.SECONDS: 6, Unit.GB_MONTHS: 12, Unit.GB: 12}


class Instant(TypeDecorator[datetime]):
    """A time in UTC as microseconds since 1970: the same in every database, and eight bytes."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database."""
        return microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else instant(int(value))


def instant(kept: int) -> datetime:
    """What `microseconds` kept."""
    return _EPOCH + timedelta(microseconds=kept)


def microseconds(at: datetime | None) -> int | None:
    """An instant as it is kept."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def whole(quantity: Decimal, unit: Unit) -> int:
    """A quantity as it is kept. Raises ValueError for one that is finer than its unit is kept."""
    scaled = quantity.scaleb(_DECIMALS[unit])
    if scaled != int(scaled):
        raise ValueError(
            f"quantity {quantity} {unit} is finer than {_DECIMALS[unit]} decimals; round it where it arises"
        )
    return int(scaled)


def quantity(kept: int, unit: Unit) -> Decimal:
    """A kept quantity as it was."""
    return Decimal(kept).scaleb(-_DECIMALS[unit])


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
    Column("received_at", Instant, nullable=False),
    Column("started", Boolean, nullable=False),
    Column("recorded", Boolean, nullable=False),  # its task has ended, and the record of it is final
    # Where its task stands, for lists: told by the worker after a turn, and by the projector.
    Column("status", String(10), nullable=False, default=TaskStatus.RUNNING.value),
    Column("stood_at", Instant),  # the turn that brought it there; NULL: none was told of yet
    Column("standing", Text, nullable=False, default="{}"),  # JSON: the rest of `standing.Standing`
    Column("caveat", Text, nullable=False, default=""),  # why that may not be how it is now
    Index("ix_tickets_tenant_sequence", "tenant", "sequence"),
    Index("ix_tickets_status_sequence", "status", "sequence"),
    Index("ix_tickets_tenant_status", "tenant", "status", "sequence"),
)
# Both are looked for among all tickets, and few are found.
for _name in ("started", "recorded"):
    _open = TICKETS.c[_name].is_(False)
    Index(f"ix_tickets_not_{_name}", TICKETS.c.sequence, sqlite_where=_open, postgresql_where=_open)

REPLIES = Table(
    "replies",
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("text", Text, nullable=False),
    Column("written_at", Instant, nullable=False),
)

DECISIONS = Table(
    "decisions",  # what people said about tasks, refused attempts included
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("decision_id", String(36), nullable=False, unique=True),
    Column("task_id", String(100), nullable=False),
    Column("question", Integer),  # NULL: it did not reach the task, or was raised by hand
    Column("at", Instant, nullable=False),
    Column("decided_by", String(100), nullable=False),  # the token's name
    Column("verdict", String(10), nullable=False),
    Column("order_id", String(64)),  # of another refund than the proposed one; once accepted, of what was approved
    Column("amount", String(20)),
    Column("currency", String(3)),
    Column("note", Text, nullable=False),  # redacted
    Column("state", String(11), nullable=False),
    Column("code", String(64), nullable=False),  # why it was not accepted
    Column("most", String(20)),  # what the order had left then
    Column("most_currency", String(3)),
    Column("settled_at", Instant),
    Column("reason", String(300), nullable=False),  # why the person was asked; empty: not known
    Index("ix_decisions_task", "task_id", "at"),
)

SESSIONS = Table(
    "sessions",  # of browsers that are signed in
    METADATA,
    Column("digest", String(64), primary_key=True),  # of the session's id
    Column("holder", String(64), nullable=False),  # the digest of the token
    Column("ends_at", Instant, nullable=False),
    Index("ix_sessions_end", "ends_at"),
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
    Column("number", Integer, nullable=False),  # 1 for the first call of the step's turn, more for its repetitions
    Column("component", String(100), nullable=False),
    Column("provider", String(100), nullable=False),  # the component's type at that time; empty: not known
    Column("model", String(200)),
    Column("request_digest", String(64), nullable=False),
    Column("prompt_version", String(12), nullable=False),
    Column("tool_form", String(6)),  # how tools were offered; null: the call offered none
    Column("worker", String(36), nullable=False),
    Column("state", String(11), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    # What an interrupted or failed call may have cost at most, in tokens.
    Column("reserve_input", Integer, nullable=False),
    Column("reserve_output", Integer, nullable=False),
    # What was used, as far as it is known, and how it is known.
    Column("input_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("output_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("usage_basis", String(10), nullable=False),
    Column("finish_reason", String(32)),
    Column("error", Text),
    Column("answer", Text),  # JSON; for a step that is executed again, under the texts' retention time
    Index("ix_model_calls_step", "execution_id", "turn"),
    Index("ix_model_calls_task", "task_id"),
    Index("ix_model_calls_started", "started_at"),
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

SIDECAR_RETRIES = Table(
    "sidecar_retries",  # how many model calls daprd repeated between two looks at its metrics; not which
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("component", String(100), nullable=False),
    Column("from_at", Instant, nullable=False),
    Column("to_at", Instant, nullable=False),
    Column("count", Integer),  # NULL: not known, the counter was lost
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("worker", String(36), primary_key=True),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("stopped_at", Instant),  # NULL: at work, or killed
    Column("sidecar", String(200), nullable=False, default="", server_default=""),  # machine and address
    Column("daprd", String(40), nullable=False, default="", server_default=""),  # its version; empty: not known
)

EXECUTIONS = Table(
    "executions",  # written ahead of each: a worker begins to work at an attempt of a step
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("execution_id", String(36), primary_key=True),  # Dapr's taskExecutionId: names the step
    Column("event_id", Integer, primary_key=True, autoincrement=False),  # of the schedule: names the attempt
    Column("number", Integer, primary_key=True, autoincrement=False),  # more than 1: the one before did not end
    Column("worker", String(36), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("lost_at", Instant),  # when its worker, alive, lost the sidecar that waited for the result
    sqlite_with_rowid=False,
)

BEGINNINGS = Table(
    "beginnings",  # a row for each time that a task was begun again whose run Dapr had given up
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("given_up_at", Instant, nullable=False),  # when Dapr ended the run before: it is begun again once
    Column("at", Instant, nullable=False),
    UniqueConstraint("task_id", "given_up_at", name="uq_beginnings"),
    sqlite_with_rowid=False,
)


# The tables of the record: what the projector makes of history and journal, and can make again.
#
# Charges are only ever added. What a report sums is kept summed as well, by day and by everything that a report may ask
# for, in the same transaction; a sum of quantities at one price is exact, and so is the money made of it.

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
    Column("meter", String(16), nullable=False),
    Column("book_digest", String(64), nullable=False),
    Column("price_id", String(200), nullable=False),  # empty: unpriced
    Column("mode", String(10), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("contracted_unit_price", String(40), nullable=False),
    Column("list_unit_price", String(40), nullable=False),
    Column("provider", String(100), nullable=False),
    Column("component", String(100), nullable=False),
    Column("model", String(200), nullable=False),
    UniqueConstraint(
        "meter",
        "book_digest",
        "price_id",
        "mode",
        "currency",
        "contracted_unit_price",
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
    Column("meter", String(16), primary_key=True),
    Column("wasted", Boolean, primary_key=True),
    Column("correction", SmallInteger, primary_key=True, autoincrement=False),  # 0: the first; n corrects n - 1
    Column("price_no", Integer, nullable=False),
    Column("consumed_quantity", BigInteger),  # see `columns.whole`; NULL: not known
    Column("usage_basis", String(10), nullable=False),
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
    Column("usage_basis", String(10), primary_key=True),
    Column("wasted", Boolean, primary_key=True),
    Column("consumed_quantity", BigInteger, nullable=False),
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
