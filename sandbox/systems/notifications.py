"""The notifications system: a message to a customer goes out once per key. It stays in the books here."""

from __future__ import annotations

from datetime import datetime

from sandbox.systems import accounts
from sandbox.systems.answers import Answer
from sandbox.systems.bodies import SendNotification
from sandbox.systems.entries import NOTIFICATIONS, add_entry, find_entry
from sandbox.systems.money import to_minor
from sandbox.systems.order_books import Books


def send(books: Books, body: SendNotification, now: datetime) -> Answer:
    """Answers notifications/send: a new message, the one that the key stands for, or a refusal."""
    refund = body.refund
    money = (refund.order_id, to_minor(refund.amount, refund.currency), refund.currency) if refund else (None,) * 3
    entry = (body.ticket_id, body.customer_id, body.outcome.value, *money, body.text)
    with books.transaction():
        known = find_entry(books, NOTIFICATIONS, body.tenant, body.idempotency_key, entry)
        if known is not None:
            return known
        if not accounts.exists(books, body.tenant, body.customer_id):
            return accounts.not_found(body.tenant, body.customer_id)
        return add_entry(books, NOTIFICATIONS, body.tenant, body.idempotency_key, entry, now)
