"""Makers of domain values for tests: each returns a valid value, with the given fields changed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from app.config import policy
from app.domain.models import Action, AnsweredBy, Category, Draft, ModelUse, Ticket, UsageBasis
from app.domain.orders import Account, Exposure, Order, OrderItem, RefundPolicy
from app.workflow.steps import TaskInput
from tests.paths import ROOT

RULES = policy.load(ROOT / "config" / "policy.yaml")
LOSSES = policy.losses(ROOT / "config" / "policy.yaml")
# A step's model use, for tests in which it does not matter.
USE = ModelUse(
    answered_by=AnsweredBy.PROVIDER,
    component="llm",
    model="m",
    prompt_version="p",
    request_digest="d",
    input_tokens=1,
    cached_tokens=None,
    output_tokens=1,
    reasoning_tokens=None,
    usage_basis=UsageBasis.REPORTED,
)


def ticket(**changes: Any) -> Ticket:
    """A ticket about a toaster that arrived broken."""
    values = {
        "tenant": "acme",
        "ticket_id": "T-1",
        "customer_id": "C-1",
        "subject": "Broken toaster",
        "text": "My toaster AC-10442 arrived broken. Please refund me.",
    }
    return Ticket.model_validate(values | changes)


def task(**changes: Any) -> TaskInput:
    """The task of `ticket()`."""
    values = {"tenant": "acme", "ticket_id": "T-1", "customer_id": "C-1", "order_id": None, "rules": RULES}
    return TaskInput.model_validate(values | changes)


def account(**changes: Any) -> Account:
    """The account of a customer without risk and refunds."""
    values = {"customer_id": "C-1", "tier": "standard", "since_days": 400, "risk": "low", "refunds_90d": 0}
    return Account.model_validate(values | changes)


def order(**changes: Any) -> Order:
    """A delivered order of 49.90 EUR without refunds."""
    values = {
        "order_id": "AC-10442",
        "status": "delivered",
        "placed_days_ago": 9,
        "delivered_days_ago": 4,
        "currency": "EUR",
        "total": "49.90",
        "charged": "49.90",
        "refunded": "0.00",
        "refundable": "49.90",
        "items": (OrderItem(sku="T1", name="Toaster", quantity=1, unit_price=Decimal("49.90")),),
    }
    return Order.model_validate(values | changes)


def exposure(**changes: Any) -> Exposure:
    """`order()` of a customer without refunds."""
    values = {"order": order(), "refunds_90d": 0, "refunded_90d": "0.00"}
    return Exposure.model_validate(values | changes)


def refund_policy(**changes: Any) -> RefundPolicy:
    """A full refund for thirty days after delivery."""
    values = {
        "category": Category.DAMAGED,
        "window_days": 30,
        "counted_from": "delivery",
        "refund_percent": 100,
        "text": "Full refund.",
    }
    return RefundPolicy.model_validate(values | changes)


def draft(**changes: Any) -> Draft:
    """A confident draft that refunds the whole order."""
    values = {
        "action": Action.REFUND,
        "order_id": "AC-10442",
        "amount": "49.90",
        "currency": "EUR",
        "reason": "damaged",
        "confidence": "0.95",
        "reply_digest": "0" * 64,
    }
    return Draft.model_validate(values | changes)


class Clock:
    """A time that a test sets; it starts at `now`."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The time."""
        return self.now
