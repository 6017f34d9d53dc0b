"""The end of stage 3, a tool: the books keep the drafted money for this ticket, before anybody is told of it."""

from __future__ import annotations

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.errors import Refused
from app.domain.models import Frozen, Refund
from app.domain.orders import Exposure, Hold
from app.workflow.activities.keys import refund_request
from app.workflow.activities.services import Activity, Services


class HoldInput(Frozen):
    """What to keep, for whom, and after how many hours it is free again by itself."""

    tenant: str
    ticket_id: str
    customer_id: str
    refund: Refund
    hours: float


class HoldOutput(Frozen):
    """What the books keep for the ticket now, or their reason for not doing so. A ticket whose refund was committed
    before, by another run, keeps that one, whatever was asked for. `exposure` is as of the moment of the hold."""

    hold: Hold | None = None
    exposure: Exposure | None = None
    refusal: str | None = None


def hold_refund(services: Services) -> Activity:
    """Builds the tool."""

    async def hold_refund(_context: WorkflowActivityContext, question: HoldInput) -> HoldOutput:
        body = refund_request(question.tenant, question.ticket_id, question.customer_id, question.refund)
        body["hours"] = question.hours
        try:
            return HoldOutput.model_validate(await services.systems.ask("refunds", "hold", body))
        except Refused as refusal:
            return HoldOutput(refusal=refusal.code)

    return hold_refund
