"""The tickets of a load: two shapes, each ticket with a customer and an order of its own. Pure.

The sandbox's books know every customer `load-<digits>` of tenant `bench` and the one order `LD-<digits>` each
of them has, so nothing is seeded, and no customer collects refunds.
"""

from __future__ import annotations

from enum import StrEnum

from app.domain.models import Ticket

TENANT = "bench"
DIGITS = 8


class Shape(StrEnum):
    """What a task does."""

    QUESTION = "question"  # 5 steps: classify, account, one draft turn, notify, close; 2 model and 3 system calls
    REFUND = "refund"  # 8 steps: two draft turns with two lookups between them; 3 model and 6 system calls


STEPS = {Shape.QUESTION: 5, Shape.REFUND: 8}
MODEL_CALLS = {Shape.QUESTION: 2, Shape.REFUND: 3}
SYSTEM_CALLS = {Shape.QUESTION: 3, Shape.REFUND: 6}
OUTCOME = {Shape.QUESTION: "answered", Shape.REFUND: "refunded"}

_SUBJECT = {Shape.QUESTION: "Opening hours", Shape.REFUND: "Broken lamp"}
_TEXT = {
    Shape.QUESTION: "Hello, do you ship to Switzerland, and how long does delivery take? Kind regards",
    Shape.REFUND: "My desk lamp from order {order} arrived broken, its glass is cracked. I like a refund, please.",
}


def make_ticket(shape: Shape, number: int) -> Ticket:
    """The ticket with this number; numbers are used once in the life of a sandbox."""
    digits = f"{number:0{DIGITS}d}"
    order = f"LD-{digits}" if shape is Shape.REFUND else None
    return Ticket(
        tenant=TENANT,
        ticket_id=f"B-{digits}",
        customer_id=f"load-{digits}",
        order_id=order,
        subject=_SUBJECT[shape],
        text=_TEXT[shape].format(order=order),
    )
