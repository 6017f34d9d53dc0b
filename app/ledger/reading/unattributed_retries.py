"""What the sidecar asked again and no call is known to have been asked again for: counted so, or not counted at all."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, or_, select

from app.finance.reconciliation.repeats import Unallocated
from app.ledger.store.tables import SIDECAR_RETRIES


def unallocated_retries(
    engine: Engine, since: datetime | None = None, until: datetime | None = None
) -> tuple[Unallocated, ...]:
    """Those of the times that reach into that one, oldest first."""
    count, allocated = SIDECAR_RETRIES.c["count"], SIDECAR_RETRIES.c.allocated
    query = select(SIDECAR_RETRIES).where(or_(count.is_(None), count > allocated))
    if since is not None:
        query = query.where(SIDECAR_RETRIES.c.to_at >= since)
    if until is not None:
        query = query.where(SIDECAR_RETRIES.c.from_at < until)
    with engine.connect() as connection:
        return tuple(
            Unallocated(
                row["component"],
                row["from_at"],
                row["to_at"],
                None if row["count"] is None else row["count"] - row["allocated"],
            )
            for row in connection.execute(query.order_by(SIDECAR_RETRIES.c.from_at)).mappings()
        )
