"""Stage 4, a tool: tells the customer how the ticket ended. The facts are ours, only the letter is the model's."""

from __future__ import annotations

import asyncio
import hashlib

from dapr.ext.workflow import WorkflowActivityContext

from app.models import Frozen, Outcome, Refund
from app.stages.services import Activity, Services

_OUR_WORDS = {
    Outcome.REFUNDED: "We have looked at your request and are sending your money back.",
    Outcome.DECLINED: "We have looked at your request. Our refund policy does not allow a refund in this case.",
    Outcome.ANSWERED: "Thank you for your message. Please write to us if anything is left open.",
    Outcome.REJECTED: "A colleague has looked at your request. We cannot refund this order.",
    Outcome.EXPIRED: "We are still looking at your request and will come back to you.",
}


class NotifyInput(Frozen):
    """`reply_digest` names the model's letter; None where it does not fit the outcome, and ours is sent."""

    task_id: str
    tenant: str
    ticket_id: str
    customer_id: str
    outcome: Outcome
    refund: Refund | None
    reply_digest: str | None


class NotifyOutput(Frozen):
    """The notice in the notification system."""

    notification_id: str


def notify_customer(services: Services) -> Activity:
    """Builds the stage."""

    async def notify_customer(_context: WorkflowActivityContext, question: NotifyInput) -> NotifyOutput:
        letter = _OUR_WORDS[question.outcome]
        if question.reply_digest is not None:
            letter = await asyncio.to_thread(services.replies.get, question.task_id, question.reply_digest)
        answer = await services.systems.ask(
            "notifications",
            "send",
            {
                "idempotency_key": notice_key(question),
                "tenant": question.tenant,
                "ticket_id": question.ticket_id,
                "customer_id": question.customer_id,
                "text": "\n\n".join(filter(None, (letter, facts(question.refund)))),
            },
        )
        return NotifyOutput(notification_id=str(answer["notification_id"]))

    return notify_customer


def facts(refund: Refund | None) -> str:
    """The line about the money, the same whatever the letter says."""
    return f"Refund: {refund.amount:.2f} {refund.currency} for order {refund.order_id}." if refund else ""


def notice_key(notice: NotifyInput) -> str:
    """One notice for each outcome of a ticket, whatever crashes; made of business facts only."""
    business = [notice.tenant, notice.ticket_id, notice.outcome.value, facts(notice.refund)]
    return hashlib.sha256("|".join(business).encode()).hexdigest()
