"""What the stages work with, and how a stage becomes a Dapr activity. No stage makes its own clients."""

from __future__ import annotations

import functools
import hashlib
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dapr.ext.workflow import WorkflowActivityContext
from sqlalchemy.exc import SQLAlchemyError

from app.dapr.systems import Systems
from app.domain.errors import RefundAgentError, StepFault, Unreachable
from app.domain.models import Refund
from app.ledger.store.database import trouble
from app.ledger.store.tickets import Replies, Tickets
from app.llm.gateway import LLMGateway

log = logging.getLogger(__name__)


# Idempotency keys of what a ticket does outside. Each is made of tenant and ticket alone: a ticket gets one refund, one
# letter and one closed case, whatever a model drafts or a person decides in a later run.


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


Activity = Callable[[WorkflowActivityContext, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Services:
    """The collaborators of the stages."""

    gateway: LLMGateway
    systems: Systems
    tickets: Tickets
    replies: Replies
    # What a task's history asks of a step (`HistoryReader.asked`).
    asked: Callable[[str, int, str], Awaitable[str | None]]


def as_activity(stage: Activity) -> Activity:
    """Makes every failure of a stage an error of ours, so that no customer's text is in it. The worker tells Dapr of it
    (`app/worker/worker.py`)."""

    @functools.wraps(stage)
    async def activity(context: WorkflowActivityContext, question: Any) -> Any:
        try:
            return await stage(context, question)
        except Unreachable as error:
            log.warning("task %s: step %s: %s", context.workflow_id, stage.__name__, error)
            raise
        except RefundAgentError:
            raise
        except SQLAlchemyError as error:
            known = trouble(error)
            if known is None:
                raise _fault(context, stage, error) from None
            log.warning("task %s: step %s: %s (%s)", context.workflow_id, stage.__name__, known, known.code)
            raise known from None
        except Exception as error:  # a fault of ours: say where, not with what values
            raise _fault(context, stage, error) from None

    return activity


def _fault(context: WorkflowActivityContext, stage: Activity, error: Exception) -> StepFault:
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} in {place.name} (line {place.lineno})"
    log.error("task %s: step %s: %s", context.workflow_id, stage.__name__, where)
    return StepFault(stage.__name__, where)


def execution_id(context: WorkflowActivityContext) -> str:
    """Dapr's `taskExecutionId`: names the step, the same in each of its attempts."""
    return str(context.get_inner_context().task_execution_id)
