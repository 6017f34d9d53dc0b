"""Executions and failures: which worker began what, and what was lost with it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds them. Of what was recorded before, no execution is known."""
    op.create_table(
        "executions",
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.Column("execution_id", sa.String(length=36), nullable=False),
        sa.Column("event_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.String(length=36), nullable=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("lost_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", "execution_id", "event_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "failures",
        sa.Column("task_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("execution", sa.SmallInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("resumed_at", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(length=11), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("worker", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("task_no", "number"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_failures_at", "failures", ["at"], unique=False)
    op.drop_index("ix_tasks_ended", "tasks")
    op.create_index("ix_tasks_ended", "tasks", ["ended_at", "started_at", "tenant"], unique=False)
    op.add_column("attempts", sa.Column("event_id", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("steps", sa.Column("lost_us", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("workers", sa.Column("stopped_at", sa.BigInteger(), nullable=True))
