"""What the activities share: their clients, the idempotency keys of what they do, and the handling of their errors."""

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
from app.domain.errors import ModelBusy, RefundAgentError, StepFault, Unreachable
from app.domain.models import Deferred, Refund
from app.ledger.store.database import trouble
from app.ledger.store.tickets import Replies, Tickets
from app.llm.gateway import LLMGateway

log = logging.getLogger(__name__)


# Idempotency keys of a ticket's effects. Each is made of tenant and ticket alone: a ticket gets one refund, one letter
# and one closed case, whatever a model drafts or a person decides in a later run.


def refund_key(tenant: str, ticket_id: str) -> str:
    """The key under which the ticket's refund is held, committed and posted. Another amount under it is a conflict and
    not a second refund."""
    return _key(tenant, ticket_id, "refund")


def refund_request(tenant: str, ticket_id: str, customer_id: str, refund: Refund) -> dict[str, Any]:
    """The request body of refunds/hold, refunds/commit and refunds/post."""
    return {
        "idempotency_key": refund_key(tenant, ticket_id),
        "tenant": tenant,
        "ticket_id": ticket_id,
        "customer_id": customer_id,
        **refund.model_dump(mode="json"),
    }


def letter_key(tenant: str, ticket_id: str) -> str:
    """The key under which the ticket's letter is sent. Another outcome or amount under it is a conflict and not a
    second letter."""
    return _key(tenant, ticket_id, "letter")


def case_key(tenant: str, ticket_id: str) -> str:
    """The key under which the ticket's case is closed."""
    return _key(tenant, ticket_id, "close")


def _key(tenant: str, ticket_id: str, effect: str) -> str:
    return hashlib.sha256(f"{tenant}|{ticket_id}|{effect}".encode()).hexdigest()


Activity = Callable[[WorkflowActivityContext, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Services:
    """The clients and stores that the activities use; no activity makes its own."""

    gateway: LLMGateway
    systems: Systems
    tickets: Tickets
    replies: Replies
    # The input with which a task's history scheduled a step, by task, event id and execution id; None when the history
    # does not hold the step (`HistoryReader.scheduled_input`).
    scheduled_input: Callable[[str, int, str], Awaitable[str | None]]


def as_activity(stage: Activity) -> Activity:
    """Wraps an activity so that every failure becomes a `RefundAgentError`, whose text quotes no customer. The worker
    passes it on to Dapr (`app/worker/worker.py`)."""

    @functools.wraps(stage)
    async def activity(context: WorkflowActivityContext, question: Any) -> Any:
        try:
            return await stage(context, question)
        except ModelBusy as busy:
            return Deferred(deferred_seconds=busy.seconds)
        except Unreachable as error:
            log.warning("task %s: step %s: %s", context.workflow_id, stage.__name__, error)
            raise
        except RefundAgentError:
            raise
        except SQLAlchemyError as error:
            unavailable = trouble(error)
            if unavailable is None:
                raise _fault(context, stage, error) from None
            log.warning("task %s: step %s: %s (%s)", context.workflow_id, stage.__name__, unavailable, unavailable.code)
            raise unavailable from None
        except Exception as error:  # a bug: report its place, not its values
            raise _fault(context, stage, error) from None

    return activity


def _fault(context: WorkflowActivityContext, stage: Activity, error: Exception) -> StepFault:
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} in {place.name} (line {place.lineno})"
    log.error("task %s: step %s: %s", context.workflow_id, stage.__name__, where)
    return StepFault(stage.__name__, where)


def execution_id(context: WorkflowActivityContext) -> str:
    """Dapr's `taskExecutionId`, which names the step and is the same in all its attempts."""
    return str(context.get_inner_context().task_execution_id)
