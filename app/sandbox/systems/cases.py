"""The cases system: a case is closed once per key, with its outcome and its refund.

A case that is closed with a refund and the event "refund issued" leave together: one transaction writes both.
"""

from __future__ import annotations

from datetime import datetime

from app.sandbox.systems import outbox, refunds
from app.sandbox.systems.answers import Answer, refusal
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
        if body.refund_id is not None:
            refund = refunds.find(books, body.tenant, body.ticket_id, body.refund_id)
            if refund is None:
                return _no_refund(body)
            outbox.refund_issued(books, body.tenant, refunds.facts(refund), now)
        return add_entry(books, CASES, body.tenant, body.idempotency_key, entry, now)


def _no_refund(body: CloseCase) -> Answer:
    return refusal(
        "refund_not_found",
        f"ticket {body.ticket_id} has no refund {body.refund_id}; post it first, and close the case with its id",
    )
