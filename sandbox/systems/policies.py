"""The policies system: what a tenant pays back, for how long and how much. Reads only."""

from __future__ import annotations

from datetime import datetime

from sandbox.systems.answers import Answer, ok, refusal
from sandbox.systems.bodies import GetPolicy
from sandbox.systems.order_books import Books


def get(books: Books, body: GetPolicy, now: datetime) -> Answer:
    """Answers policies/get; only refundable categories have a policy."""
    row = books.one(
        "SELECT category, window_days, counted_from, refund_percent, text FROM policies"
        " WHERE tenant = ? AND category = ?",
        body.tenant,
        body.category,
    )
    if row is None:
        return refusal(
            "no_policy",
            f"tenant {body.tenant} has no refund policy for '{body.category}'; nothing is paid back",
        )
    return ok(policy=dict(row))
