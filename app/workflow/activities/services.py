"""What the stages work with, and how a stage becomes a Dapr activity. No stage makes its own clients."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dapr.ext.workflow import WorkflowActivityContext
from dapr.ext.workflow._durabletask.task import NonRetryableError
from sqlalchemy.exc import SQLAlchemyError

from app.dapr.systems import Systems
from app.domain.errors import RefundAgentError, Unreachable
from app.ledger.store.database_errors import trouble
from app.ledger.store.replies import Replies
from app.ledger.store.tickets import Tickets
from app.llm.gateway import LLMGateway

log = logging.getLogger(__name__)

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
    """Makes a stage's failures fit for history: no customer's text in them, and retried only where that helps."""

    @functools.wraps(stage)
    async def activity(context: WorkflowActivityContext, question: Any) -> Any:
        try:
            return await stage(context, question)
        except Unreachable as error:
            log.warning("task %s: step %s: %s", context.workflow_id, stage.__name__, error)
            raise
        except RefundAgentError as error:
            raise NonRetryableError(str(error)) from None
        except SQLAlchemyError as error:
            known = trouble(error)
            if known is None:
                raise _fault(context, stage, error) from None
            log.warning("task %s: step %s: %s (%s)", context.workflow_id, stage.__name__, known, known.code)
            raise known from None
        except Exception as error:  # a fault of ours: say where, not with what values
            raise _fault(context, stage, error) from None

    return activity


def _fault(context: WorkflowActivityContext, stage: Activity, error: Exception) -> NonRetryableError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} in {place.name} (line {place.lineno})"
    log.error("task %s: step %s: %s", context.workflow_id, stage.__name__, where)
    return NonRetryableError(f"step {stage.__name__}: {where}; mend it, then `task resume`")


def execution_id(context: WorkflowActivityContext) -> str:
    """Dapr's `taskExecutionId`: names the step, the same in each of its attempts."""
    return str(context.get_inner_context().task_execution_id)
