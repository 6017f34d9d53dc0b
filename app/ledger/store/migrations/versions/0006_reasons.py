"""Decisions: why the person was asked."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds it. Of decisions before, it is not known."""
    op.add_column("decisions", sa.Column("reason", sa.String(length=300), nullable=False, server_default=""))
