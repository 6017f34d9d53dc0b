"""The tables of intake, of the gateway's journal and of the workers. The record's own are in `record_tables.py`."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, UniqueConstraint

from app.domain.models import TaskStatus
from app.ledger.store.columns import METADATA, Instant

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
    Column("known", String(10), nullable=False),
    Column("finish_reason", String(32)),
    Column("error", Text),
    # Requests that the sidecar made for this call on its own, beyond the first: its share of what daprd counts.
    Column("retries", Integer, nullable=False),
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
    "sidecar_retries",  # what daprd's metrics say between two looks at them
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("component", String(100), nullable=False),
    Column("from_at", Instant, nullable=False),
    Column("to_at", Instant, nullable=False),
    Column("count", Integer),  # NULL: not known, daprd was restarted in between
    Column("allocated", Integer, nullable=False),  # how many of them found a model call to belong to
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("worker", String(36), primary_key=True),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("stopped_at", Instant),  # NULL: at work, or killed
    Column("sidecar", String(200), nullable=False, default="", server_default=""),  # machine and address
)

EXECUTIONS = Table(
    "executions",  # written ahead of each: a worker begins to work at an attempt of a step
    METADATA,
    Column("task_id", String(100), primary_key=True),
    Column("execution_id", String(36), primary_key=True),  # Dapr's taskExecutionId: names the step
    Column("event_id", Integer, primary_key=True, autoincrement=False),  # of the schedule: names the attempt
    Column("number", Integer, primary_key=True, autoincrement=False),  # more than 1: the one before did not end
    Column("worker", String(36), nullable=False),
    Column("begun_at", Instant, nullable=False),
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
