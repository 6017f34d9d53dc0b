"""Requests that a sidecar repeated are counted for a time, not allocated to model calls."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Drops what was allocated. Charges that were made for it stay until `ledger rebuild`."""
    op.drop_column("model_calls", "retries")
    op.drop_column("sidecar_retries", "allocated")
