"""Where each ticket's task stands, so that lists are answered from here."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0004"

_AT_ONCE = 1_000
_ENDED = (
    "SELECT t.sequence, r.status, r.outcome, r.category, r.order_id, r.refund_amount, r.refund_currency, r.refund_id,"
    " r.started_at, r.ended_at FROM tickets t JOIN tasks r ON r.task_id = t.task_id WHERE t.sequence > :after"
    " ORDER BY t.sequence LIMIT :most"
)
_STANDS = sa.text(
    "UPDATE tickets SET status = :status, stood_at = :stood_at, standing = :standing WHERE sequence = :sequence"
)


def upgrade() -> None:
    """Adds them, and fills them from the records. Who decided was not kept there."""
    op.add_column("tickets", sa.Column("status", sa.String(length=10), nullable=False, server_default="running"))
    op.add_column("tickets", sa.Column("stood_at", sa.BigInteger(), nullable=True))
    op.add_column("tickets", sa.Column("standing", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("tickets", sa.Column("caveat", sa.Text(), nullable=False, server_default=""))
    _fill(op.get_bind())
    op.create_index("ix_tickets_status_sequence", "tickets", ["status", "sequence"], unique=False)
    op.create_index("ix_tickets_tenant_status", "tickets", ["tenant", "status", "sequence"], unique=False)


def _fill(connection: sa.Connection) -> None:
    after = 0
    while rows := connection.execute(sa.text(_ENDED), {"after": after, "most": _AT_ONCE}).mappings().all():
        after = rows[-1]["sequence"]
        connection.execute(_STANDS, [_standing(row) for row in rows])


def _standing(row: sa.RowMapping) -> dict[str, object]:
    """What a task that goes on waits for is told again when it is looked at; an old time lets that through."""
    standing: dict[str, object] = {}
    if row["category"]:
        standing["category"] = row["category"]
    if row["outcome"]:
        result = {"outcome": row["outcome"], "category": row["category"] or None, "refund_id": row["refund_id"]}
        if row["refund_amount"] is not None:
            names = {"order_id": "order_id", "amount": "refund_amount", "currency": "refund_currency"}
            result["refund"] = {name: row[column] for name, column in names.items()}
        standing["result"] = result
    stood_at = row["ended_at"] or row["started_at"]
    kept = {"sequence": row["sequence"], "status": row["status"], "stood_at": stood_at}
    return {**kept, "standing": json.dumps(standing)}
