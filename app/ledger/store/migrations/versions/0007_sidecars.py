"""Workers: the sidecar that each one is beside."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds it. Of workers before, it is not known."""
    op.add_column("workers", sa.Column("sidecar", sa.String(length=200), nullable=False, server_default=""))
