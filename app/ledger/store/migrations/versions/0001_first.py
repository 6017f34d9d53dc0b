"""The first tables: intake, journal, record."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes them."""
    op.create_table(
        "attempts",
        sa.Column("task_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("scheduled_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_no", "step", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "charges",
        sa.Column("task_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.String(length=16), nullable=False),
        sa.Column("rerun", sa.Boolean(), nullable=False),
        sa.Column("correction", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("price_no", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=True),
        sa.Column("known", sa.String(length=10), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_no", "step", "turn", "number", "line", "rerun", "correction"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "daily_costs",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=31), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(length=64), nullable=False),
        sa.Column("tool", sa.String(length=64), nullable=False),
        sa.Column("price_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("known", sa.String(length=10), nullable=False),
        sa.Column("rerun", sa.Boolean(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("charges", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "tenant", "agent", "workflow", "outcome", "stage", "step", "tool", "price_no", "known", "rerun"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "model_calls",
        sa.Column("call_id", sa.String(length=36), nullable=False),
        sa.Column("execution_id", sa.String(length=36), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.Column("tenant", sa.String(length=31), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("component", sa.String(length=100), nullable=False),
        sa.Column("provider", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("prompt_version", sa.String(length=12), nullable=False),
        sa.Column("worker", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=11), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("reserve_input", sa.Integer(), nullable=False),
        sa.Column("reserve_output", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("known", sa.String(length=10), nullable=False),
        sa.Column("finish_reason", sa.String(length=32), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("call_id"),
    )
    op.create_index("ix_model_calls_started", "model_calls", ["started_at"], unique=False)
    op.create_index("ix_model_calls_state_worker", "model_calls", ["state", "worker"], unique=False)
    op.create_index("ix_model_calls_step", "model_calls", ["execution_id", "turn"], unique=False)
    op.create_index("ix_model_calls_task", "model_calls", ["task_id"], unique=False)
    op.create_index(
        "uq_model_calls_settled",
        "model_calls",
        ["execution_id", "turn"],
        unique=True,
        sqlite_where=sa.text("state = 'settled'"),
        postgresql_where=sa.text("state = 'settled'"),
    )
    op.create_table(
        "pauses",
        sa.Column("task_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("part", sa.String(length=10), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_no", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "price_books",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("first_used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "prices",
        sa.Column("price_no", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("line", sa.String(length=16), nullable=False),
        sa.Column("book_digest", sa.String(length=64), nullable=False),
        sa.Column("price_id", sa.String(length=200), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("unit_price", sa.String(length=40), nullable=False),
        sa.Column("list_unit_price", sa.String(length=40), nullable=False),
        sa.Column("provider", sa.String(length=100), nullable=False),
        sa.Column("component", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("price_no"),
        sa.UniqueConstraint(
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
    op.create_table(
        "replies",
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "digest"),
    )
    op.create_table(
        "sidecar_retries",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("component", sa.String(length=100), nullable=False),
        sa.Column("from_at", sa.BigInteger(), nullable=False),
        sa.Column("to_at", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("allocated", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_table(
        "steps",
        sa.Column("task_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("execution_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("stage", sa.String(length=64), nullable=False),
        sa.Column("tool", sa.String(length=64), nullable=False),
        sa.Column("active_us", sa.BigInteger(), nullable=False),
        sa.Column("writes", sa.Integer(), nullable=False),
        sa.Column("answered_by", sa.String(length=10), nullable=True),
        sa.PrimaryKeyConstraint("task_no", "step"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tasks",
        sa.Column("task_no", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.Column("tenant", sa.String(length=31), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("execution_id", sa.String(length=64), nullable=False),
        sa.Column("rerun_of", sa.String(length=100), nullable=True),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=16), nullable=False),
        sa.Column("order_id", sa.String(length=64), nullable=True),
        sa.Column("refund_amount", sa.String(length=16), nullable=True),
        sa.Column("refund_currency", sa.String(length=3), nullable=True),
        sa.Column("refund_id", sa.String(length=64), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("projected_at", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.String(length=200), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("trace_parent", sa.String(length=55), nullable=False),
        sa.PrimaryKeyConstraint("task_no"),
        sa.UniqueConstraint("task_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tasks_ended", "tasks", ["ended_at"], unique=False)
    op.create_table(
        "tickets",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.Column("tenant", sa.String(length=31), nullable=False),
        sa.Column("ticket_id", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.Column("order_id", sa.String(length=64), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.Boolean(), nullable=False),
        sa.Column("recorded", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("task_id"),
    )
    op.create_index(
        "ix_tickets_not_recorded",
        "tickets",
        ["sequence"],
        unique=False,
        sqlite_where=sa.text("recorded IS 0"),
        postgresql_where=sa.text("recorded IS false"),
    )
    op.create_index(
        "ix_tickets_not_started",
        "tickets",
        ["sequence"],
        unique=False,
        sqlite_where=sa.text("started IS 0"),
        postgresql_where=sa.text("started IS false"),
    )
    op.create_index("ix_tickets_tenant_sequence", "tickets", ["tenant", "sequence"], unique=False)
    op.create_table(
        "workers",
        sa.Column("worker", sa.String(length=36), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker"),
    )
