"""The cases system: a case is closed once per key, with its outcome and its refund."""

from __future__ import annotations

from datetime import datetime

from app.sandbox.systems.answers import Answer
from app.sandbox.systems.bodies import CloseCase
from app.sandbox.systems.books import Books
from app.sandbox.systems.entries import CASES, add_entry, find_entry


def close(books: Books, body: CloseCase, now: datetime) -> Answer:
    """Answers cases/close: a newly closed case, the one that the key stands for, or a refusal."""
    entry = (body.ticket_id, body.outcome.value, body.refund_id)
    with books.transaction():
        known = find_entry(books, CASES, body.tenant, body.idempotency_key, entry)
        if known is not None:
            return known
        return add_entry(books, CASES, body.tenant, body.idempotency_key, entry, now)
