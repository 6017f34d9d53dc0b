"""Workers: which version the sidecar beside each one is."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds it. Of workers before, it is not known."""
    op.add_column("workers", sa.Column("daprd", sa.String(length=40), nullable=False, server_default=""))
