"""Stage 5, a tool: posts the committed refund once, then closes the case.

Money is posted only if the task's own history scheduled this very step with this very input. Up to Dapr 1.18.5, another
app of the namespace can make the worker execute an activity; such a step is not in the task's own history.
"""

from __future__ import annotations

import asyncio
import time

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.errors import StepNotInHistory, Unreachable
from app.domain.models import Frozen, Outcome, Refund, task_id
from app.workflow.activities.services import Activity, Services, case_key, execution_id, refund_request

# Dapr saves the turn that schedules a step within milliseconds of handing the step out.
_SAVED_SECONDS, _LOOK_SECONDS = 5.0, 0.02


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
    """Makes the activity."""

    async def close_case(context: WorkflowActivityContext, question: CloseInput) -> CloseOutput:
        refund_id = await _post_refund(services, context, question)
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


async def _post_refund(services: Services, context: WorkflowActivityContext, question: CloseInput) -> str | None:
    if question.refund is None:
        return None
    await _require_in_history(services, context, question)
    body = refund_request(question.tenant, question.ticket_id, question.customer_id, question.refund)
    return str((await services.systems.ask("refunds", "post", body))["refund_id"])


async def _require_in_history(services: Services, context: WorkflowActivityContext, question: CloseInput) -> None:
    """Raises StepNotInHistory when the task's history did not schedule this step with this input; Unreachable when the
    history does not hold the step after `_SAVED_SECONDS`."""
    task, until = task_id(question.tenant, question.ticket_id), time.monotonic() + _SAVED_SECONDS
    if context.workflow_id != task:
        raise StepNotInHistory("close_case", context.workflow_id, task)
    while (scheduled := await services.scheduled_input(task, context.task_id, execution_id(context))) is None:
        if time.monotonic() > until:
            raise Unreachable(f"task {task}: its history does not hold this step yet; it is tried again")
        await asyncio.sleep(_LOOK_SECONDS)
    if CloseInput.model_validate_json(scheduled) != question:
        raise StepNotInHistory("close_case", context.workflow_id, task)
