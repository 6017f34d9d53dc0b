"""How a model call offered its tools."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column; earlier calls do not say."""
    with op.batch_alter_table("model_calls") as table:
        table.add_column(sa.Column("tool_form", sa.String(length=6), nullable=True))
