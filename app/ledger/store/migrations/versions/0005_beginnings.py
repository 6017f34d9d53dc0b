"""Beginnings: how often each task was begun again after Dapr gave its run up, counted for all workers together."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"


def upgrade() -> None:
    """Adds them. What a worker counted before was its own."""
    op.create_table(
        "beginnings",
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("given_up_at", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "number"),
        sa.UniqueConstraint("task_id", "given_up_at", name="uq_beginnings"),
        sqlite_with_rowid=False,
    )
