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

METADATA = MetaData()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Decimals of the stored quantities. A quantity is stored as a whole number, so that a database can sum it exactly:
# seconds in microseconds, GB and GB-months in units of 10^-12.
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
    """The time (UTC) of a stored instant; the inverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=kept)


def microseconds(at: datetime | None) -> int | None:
    """The microseconds since 1970-01-01 UTC, as which an instant is stored."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


def whole(quantity: Decimal, unit: Unit) -> int:
    """The whole number as which a quantity is stored. Raises ValueError if the quantity has more decimals than its unit
    is stored with."""
    scaled = quantity.scaleb(_DECIMALS[unit])
    if scaled != int(scaled):
        raise ValueError(
            f"quantity {quantity} {unit} has more than {_DECIMALS[unit]} decimals; round it where it is computed"
        )
    return int(scaled)


def quantity(kept: int, unit: Unit) -> Decimal:
    """The quantity of a stored whole number; the inverse of `whole`."""
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
    Column("recorded", Boolean, nullable=False),  # whether its task has ended and the record is final
    # The task's standing, for lists: written by the worker after a turn, and by the projector.
    Column("status", String(10), nullable=False, default=TaskStatus.RUNNING.value),
    Column("stood_at", Instant),  # the turn of this standing; NULL: no standing was saved yet
    Column("standing", Text, nullable=False, default="{}"),  # JSON: the rest of `standing.Standing`
    Column("caveat", Text, nullable=False, default=""),  # why the standing may be outdated
    Index("ix_tickets_tenant_sequence", "tenant", "sequence"),
    Index("ix_tickets_status_sequence", "status", "sequence"),
    Index("ix_tickets_tenant_status", "tenant", "status", "sequence"),
)
# Partial indexes, since few of all tickets are not started or not recorded.
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
    # A refund that replaces the proposed one; once accepted, the approved refund.
    Column("order_id", String(64)),
    Column("amount", String(20)),
    Column("currency", String(3)),
    Column("note", Text, nullable=False),  # redacted
    Column("state", String(11), nullable=False),
    Column("code", String(64), nullable=False),  # why it was not accepted
    Column("most", String(20)),  # the amount that the order had left then
    Column("most_currency", String(3)),
    Column("settled_at", Instant),
    Column("reason", String(300), nullable=False),  # why the person was asked; empty: not known
    Index("ix_decisions_task", "task_id", "at"),
)

SESSIONS = Table(
    "sessions",  # of signed-in browsers
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
    Column("number", Integer, nullable=False),  # 1 for the first call of the step's turn, higher for repeats
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
    # The most tokens that an interrupted or failed call may have used.
    Column("reserve_input", Integer, nullable=False),
    Column("reserve_output", Integer, nullable=False),
    # The tokens that were used; NULL: not known.
    Column("input_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("output_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("usage_basis", String(10), nullable=False),
    Column("finish_reason", String(32)),
    Column("error", Text),
    Column("answer", Text),  # JSON, for a repeated execution of the step; kept for the texts' retention time
    Index("ix_model_calls_step", "execution_id", "turn"),
    Index("ix_model_calls_task", "task_id"),
    Index("ix_model_calls_started", "started_at"),
    Index("ix_model_calls_state_worker", "state", "worker"),
)
# Two simultaneous executions of a step may both call the model, but only one answer settles the step.
Index(
    "uq_model_calls_settled",
    MODEL_CALLS.c.execution_id,
    MODEL_CALLS.c.turn,
    unique=True,
    sqlite_where=MODEL_CALLS.c.state == "settled",
    postgresql_where=MODEL_CALLS.c.state == "settled",
)

SIDECAR_RETRIES = Table(
    "sidecar_retries",  # the number of model calls that daprd repeated between two reads of its metrics
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("component", String(100), nullable=False),
    Column("from_at", Instant, nullable=False),
    Column("to_at", Instant, nullable=False),
    Column("count", Integer),  # NULL: not known, since the counter was lost
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("worker", String(36), primary_key=True),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("stopped_at", Instant),  # NULL: running, or killed
    Column("sidecar", String(200), nullable=False, default="", server_default=""),  # machine and address
    Column("daprd", String(40), nullable=False, default="", server_default=""),  # its version; empty: not known
)

EXECUTIONS = Table(
    "executions",  # the execution log: a row before each start of a worker on an attempt
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("execution_id", String(36), primary_key=True),  # Dapr's taskExecutionId: names the step
    Column("event_id", Integer, primary_key=True, autoincrement=False),  # of the schedule: names the attempt
    Column("number", Integer, primary_key=True, autoincrement=False),  # above 1: the previous execution did not end
    Column("worker", String(36), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("lost_at", Instant),  # when its live worker lost the sidecar that waited for the result
    sqlite_with_rowid=False,
)

BEGINNINGS = Table(
    "beginnings",  # a row for each restart of a task after a rejected run
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("given_up_at", Instant, nullable=False),  # when Dapr ended the rejected run; unique, so it restarts once
    Column("at", Instant, nullable=False),
    UniqueConstraint("task_id", "given_up_at", name="uq_beginnings"),
    sqlite_with_rowid=False,
)


# The tables of the record, which the projector computes from history and journal and can rebuild.
#
# Charges are only ever added. The same transaction updates their daily sums by every dimension of a report. A sum of
# quantities at one price is exact, and so is the money computed from it.

TASKS = Table(
    "tasks",
    METADATA,
    Column("task_no", Integer, primary_key=True, autoincrement=True),  # shorter than the id, since many rows have it
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
    sqlite_autoincrement=True,  # never reuses the number of a deleted task
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
    Column("execution", SmallInteger, nullable=False),  # 0: not known
    Column("at", Instant, nullable=False),
    Column("resumed_at", Instant),  # NULL: not resumed
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
    "prices",  # every price of a charge
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
    Column("turn", SmallInteger, primary_key=True, autoincrement=False),  # 0: no model call
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("meter", String(16), primary_key=True),
    Column("wasted", Boolean, primary_key=True),
    Column("correction", SmallInteger, primary_key=True, autoincrement=False),  # 0: the first; n corrects n - 1
    Column("price_no", Integer, nullable=False),
    Column("consumed_quantity", BigInteger),  # see `whole`; NULL: not known
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
    "price_books",  # every book that charges were made with, for rebuilds
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", Text, nullable=False),
    Column("first_used_at", Instant, nullable=False),
)
