"""Idempotency keys of what a ticket does outside. Each is made of tenant and ticket alone: a ticket gets one refund,
one letter and one closed case, whatever a model drafts or a person decides in a later run. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from app.domain.models import Refund


def refund_key(tenant: str, ticket_id: str) -> str:
    """Holds, commits and posts the ticket's refund; another amount for it is a conflict and not another refund."""
    return _key(tenant, ticket_id, "refund")


def refund_request(tenant: str, ticket_id: str, customer_id: str, refund: Refund) -> dict[str, Any]:
    """What refunds/hold, refunds/commit and refunds/post are asked about the ticket's refund."""
    return {
        "idempotency_key": refund_key(tenant, ticket_id),
        "tenant": tenant,
        "ticket_id": ticket_id,
        "customer_id": customer_id,
        **refund.model_dump(mode="json"),
    }


def letter_key(tenant: str, ticket_id: str) -> str:
    """Sends the ticket's letter; one with another outcome or amount is a conflict and not another letter."""
    return _key(tenant, ticket_id, "letter")


def case_key(tenant: str, ticket_id: str) -> str:
    """Closes the ticket's case."""
    return _key(tenant, ticket_id, "close")


def _key(tenant: str, ticket_id: str, effect: str) -> str:
    return hashlib.sha256(f"{tenant}|{ticket_id}|{effect}".encode()).hexdigest()
