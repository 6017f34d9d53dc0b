"""Stage 5, a tool: posts the refund once, then closes the case."""

from __future__ import annotations

import hashlib

from dapr.ext.workflow import WorkflowActivityContext

from app.errors import Refused
from app.models import Frozen, Outcome, Refund
from app.stages.services import Activity, Services


class CloseInput(Frozen):
    """How the ticket ended."""

    tenant: str
    ticket_id: str
    customer_id: str
    outcome: Outcome
    refund: Refund | None


class CloseOutput(Frozen):
    """`refusal` is the books' reason for not taking the refund: then nothing was posted and nothing closed."""

    case_id: str | None
    refund_id: str | None
    refusal: str | None


def close_case(services: Services) -> Activity:
    """Builds the stage."""

    async def close_case(_context: WorkflowActivityContext, question: CloseInput) -> CloseOutput:
        try:
            refund_id = await _posted(services, question)
        except Refused as refusal:
            return CloseOutput(case_id=None, refund_id=None, refusal=refusal.code)
        case = {
            "idempotency_key": case_key(question),
            "tenant": question.tenant,
            "ticket_id": question.ticket_id,
            "outcome": question.outcome.value,
            "refund_id": refund_id,
        }
        closed = await services.systems.ask("cases", "close", case)
        return CloseOutput(case_id=str(closed["case_id"]), refund_id=refund_id, refusal=None)

    return close_case


async def _posted(services: Services, question: CloseInput) -> str | None:
    if question.refund is None:
        return None
    body = {
        "idempotency_key": refund_key(question.tenant, question.ticket_id),
        "tenant": question.tenant,
        "ticket_id": question.ticket_id,
        "customer_id": question.customer_id,
        **question.refund.model_dump(mode="json"),
    }
    return str((await services.systems.ask("refunds", "post", body))["refund_id"])


def refund_key(tenant: str, ticket_id: str) -> str:
    """One ticket, one refund: the ticket alone, so that another amount for it is a conflict and not another refund.
    Order and amount come from a model's draft or a person, and a ticket that is worked again may get others."""
    return hashlib.sha256(f"{tenant}|{ticket_id}|refund".encode()).hexdigest()


def case_key(question: CloseInput) -> str:
    """A case is closed once."""
    return hashlib.sha256(f"{question.tenant}|{question.ticket_id}|close".encode()).hexdigest()
