"""The state of a task at one moment, from Dapr's status, a turn of the worker, or a history.

An output or custom status in an unknown form, such as another workflow's, is ignored and never an error.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from app.domain.models import (
    Category,
    Frozen,
    Progress,
    Question,
    Refund,
    SettledDecision,
    TaskOutput,
    TaskResult,
    TaskStatus,
)

M = TypeVar("M", bound=BaseModel)


class Standing(Frozen):
    """The state of a task. `at` is the time of its last turn by the sidecar's clock; None before the first."""

    status: TaskStatus
    at: datetime | None = None
    category: Category | None = None
    waiting_for: str | None = None
    proposed_refund: Refund | None = None
    question: Question | None = None
    result: TaskResult | None = None
    error: str | None = None
    decisions: tuple[SettledDecision, ...] = ()  # the last ones that the task has processed

    @property
    def resting(self) -> bool:
        """Whether it continues only when a person acts."""
        return self.status in (TaskStatus.WAITING, TaskStatus.PARKED, TaskStatus.PAUSED)


class _Termination(Frozen):
    """The output of a run that `WorkflowClient.terminate` has ended."""

    reason: str


def running_standing(custom_status: str | None, at: datetime, held: TaskStatus | None = None) -> Standing:
    """The state of a task that has not ended, by its custom status. `held` overrides the status: paused, or parked."""
    progress = _read(Progress, custom_status)
    if progress is None:
        return Standing(status=held or TaskStatus.RUNNING, at=at)
    return Standing(
        status=held or progress.status,
        at=at,
        category=progress.category,
        waiting_for=progress.reason or None,
        proposed_refund=progress.refund,
        question=progress.question,
        decisions=progress.decisions,
    )


def ended_standing(status: TaskStatus, at: datetime, output: str | None, failure: str | None) -> Standing:
    """The state of an ended task, with its result, or why it failed or was terminated."""
    if status is not TaskStatus.COMPLETED:
        termination = _read(_Termination, output)
        reason = termination.reason if termination else output
        return Standing(status=status, at=at, error=failure or reason or status.value)
    result = _read(TaskOutput, output)
    if result is None:
        return Standing(status=status, at=at)
    return Standing(status=status, at=at, category=result.category, result=result.result, decisions=result.decisions)


def lost_task_message(task_id: str) -> str:
    """The message about a task that has not ended and that Dapr does not know."""
    return f"not known to the workflow engine; `refund-agent task rerun {task_id}` restarts it"


def _read(model: type[M], text: str | None) -> M | None:
    try:
        return model.model_validate_json(text) if text else None
    except ValidationError:
        return None
