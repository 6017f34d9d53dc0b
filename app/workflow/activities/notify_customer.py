"""Stage 4, a tool: sends the customer a letter about how the ticket ended. The outcome and the refund come from the
decision; only the wording may be the model's.

Before the letter, the refund system commits the refund, or voids the ticket, which then never gets one. So no letter
promises money that is not committed, and none denies money that is. If two runs of a ticket ask for different things,
the first one decides. The step may be executed again at any point.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.errors import Refused
from app.domain.models import Frozen, Outcome, Refund
from app.workflow.activities import letters
from app.workflow.activities.services import Activity, Services, letter_key, refund_request

# Another run of the ticket has sent a letter with another outcome or amount.
ALREADY_TOLD = "already_told"


class NotifyInput(Frozen):
    """`reply_digest` names the model's letter; with None, our own letter is sent. `order_id` is the order that the
    ticket is about."""

    task_id: str
    tenant: str
    ticket_id: str
    customer_id: str
    order_id: str | None
    outcome: Outcome
    refund: Refund | None
    reply_digest: str | None


class NotifyOutput(Frozen):
    """The id of the notification. `letter` says who wrote the text, `unfit` is the code of why the model's letter was
    not sent. `refusal` is the code of why nothing was sent: the refund system's, or `already_told`."""

    notification_id: str | None
    letter: Literal["model", "ours"] = "ours"
    unfit: str | None = None
    refusal: str | None = None


def notify_customer(services: Services) -> Activity:
    """Makes the activity."""

    async def notify_customer(_context: WorkflowActivityContext, question: NotifyInput) -> NotifyOutput:
        try:
            await _commit_or_void(services, question)
        except Refused as refusal:
            return NotifyOutput(notification_id=None, refusal=refusal.reason)
        letter, unfit = await _fit_letter(services, question)
        notice = {
            "idempotency_key": letter_key(question.tenant, question.ticket_id),
            "tenant": question.tenant,
            "ticket_id": question.ticket_id,
            "customer_id": question.customer_id,
            "outcome": question.outcome.value,
            "refund": question.refund.model_dump(mode="json") if question.refund else None,
            "text": letters.compose(question.outcome, question.refund, letter),
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


async def _commit_or_void(services: Services, question: NotifyInput) -> None:
    """Commits the refund that the letter names; without one, voids the ticket. Raises Refused."""
    if question.refund is not None:
        body = refund_request(question.tenant, question.ticket_id, question.customer_id, question.refund)
        await services.systems.ask("refunds", "commit", body)
    else:
        await services.systems.ask("refunds", "void", {"tenant": question.tenant, "ticket_id": question.ticket_id})


async def _fit_letter(services: Services, question: NotifyInput) -> tuple[str | None, str | None]:
    """The model's letter if it may be sent, and otherwise the code of why not. (None, None) without one."""
    if question.reply_digest is None:
        return None, None
    letter = await asyncio.to_thread(services.replies.get, question.task_id, question.reply_digest)
    unfit = letters.unfit(letter, question.refund, question.order_id)
    return (letter, None) if unfit is None else (None, unfit)
