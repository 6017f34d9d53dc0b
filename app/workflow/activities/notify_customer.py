"""Stage 4, a tool: tells the customer how the ticket ended. The facts are ours, only the letter is the model's.

A letter never promises what the books have not accepted, and never denies what they have: the refund is committed
first, or the ticket is closed for any refund. The books do the one or the other, whichever a run of the ticket asks for
first. The step may be executed again at any point.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.errors import Refused
from app.domain.models import Frozen, Outcome, Refund
from app.workflow.activities import letters
from app.workflow.activities.services import Activity, Services, letter_key, refund_request

# The ticket has its letter already, and that one says something else: another run of the ticket was faster.
ALREADY_TOLD = "already_told"


class NotifyInput(Frozen):
    """`reply_digest` names the model's letter; None where it does not fit the outcome, and ours is sent.
    `order_id` is the order that the ticket is about."""

    task_id: str
    tenant: str
    ticket_id: str
    customer_id: str
    order_id: str | None
    outcome: Outcome
    refund: Refund | None
    reply_digest: str | None


class NotifyOutput(Frozen):
    """The notice in the notification system. `letter` says whose words it is in, `unfit` why not the model's.

    `refusal` is why nothing was sent: the books' reason for not committing the refund, or `already_told`.
    """

    notification_id: str | None
    letter: Literal["model", "ours"] = "ours"
    unfit: str | None = None
    refusal: str | None = None


def notify_customer(services: Services) -> Activity:
    """Builds the stage."""

    async def notify_customer(_context: WorkflowActivityContext, question: NotifyInput) -> NotifyOutput:
        try:
            await _settled_in_books(services, question)
        except Refused as refusal:
            return NotifyOutput(notification_id=None, refusal=refusal.reason)
        letter, unfit = await _letter(services, question)
        notice = {
            "idempotency_key": letter_key(question.tenant, question.ticket_id),
            "tenant": question.tenant,
            "ticket_id": question.ticket_id,
            "customer_id": question.customer_id,
            "outcome": question.outcome.value,
            "refund": question.refund.model_dump(mode="json") if question.refund else None,
            "text": letters.composed(question.outcome, question.refund, letter),
        }
        try:
            answer = await services.systems.ask("notifications", "send", notice)
        except Refused as refusal:
            if refusal.reason != "idempotency_conflict":
                raise
            return NotifyOutput(notification_id=None, refusal=ALREADY_TOLD)
        return NotifyOutput(
            notification_id=str(answer["notification_id"]), letter="model" if letter else "ours", unfit=unfit
        )

    return notify_customer


async def _settled_in_books(services: Services, question: NotifyInput) -> None:
    """Commits the refund that the letter names, or gives back what is held for good. Raises Refused."""
    if question.refund is not None:
        body = refund_request(question.tenant, question.ticket_id, question.customer_id, question.refund)
        await services.systems.ask("refunds", "commit", body)
    else:
        await services.systems.ask("refunds", "void", {"tenant": question.tenant, "ticket_id": question.ticket_id})


async def _letter(services: Services, question: NotifyInput) -> tuple[str | None, str | None]:
    """The model's letter, or None and why it may not be sent."""
    if question.reply_digest is None:
        return None, None
    letter = await asyncio.to_thread(services.replies.get, question.task_id, question.reply_digest)
    unfit = letters.unfit(letter, question.refund, question.order_id)
    return (letter, None) if unfit is None else (None, unfit)
