"""Stage 5, a tool: posts the committed refund once, then closes the case."""

from __future__ import annotations

from dapr.ext.workflow import WorkflowActivityContext

from app.models import Frozen, Outcome, Refund
from app.stages.keys import case_key, refund_request
from app.stages.services import Activity, Services


class CloseInput(Frozen):
    """How the ticket ended."""

    tenant: str
    ticket_id: str
    customer_id: str
    outcome: Outcome
    refund: Refund | None


class CloseOutput(Frozen):
    """The closed case, and the refund that was posted."""

    case_id: str
    refund_id: str | None


def close_case(services: Services) -> Activity:
    """Builds the stage."""

    async def close_case(_context: WorkflowActivityContext, question: CloseInput) -> CloseOutput:
        refund_id = await _posted(services, question)
        case = {
            "idempotency_key": case_key(question.tenant, question.ticket_id),
            "tenant": question.tenant,
            "ticket_id": question.ticket_id,
            "outcome": question.outcome.value,
            "refund_id": refund_id,
        }
        closed = await services.systems.ask("cases", "close", case)
        return CloseOutput(case_id=str(closed["case_id"]), refund_id=refund_id)

    return close_case


async def _posted(services: Services, question: CloseInput) -> str | None:
    if question.refund is None:
        return None
    body = refund_request(question.tenant, question.ticket_id, question.customer_id, question.refund)
    return str((await services.systems.ask("refunds", "post", body))["refund_id"])
