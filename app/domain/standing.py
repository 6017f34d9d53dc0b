"""Where a task stands, whoever says so: Dapr, a turn of the worker, or a history. Pure.

Another workflow's output or custom status is none of ours and says nothing here; it is never an error.
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
    """A task at one moment. `at`: the time of its last turn by its sidecar's clock; None when nothing was told yet."""

    status: TaskStatus
    at: datetime | None = None
    category: Category | None = None
    waiting_for: str | None = None
    proposed_refund: Refund | None = None
    question: Question | None = None
    result: TaskResult | None = None
    error: str | None = None
    decisions: tuple[SettledDecision, ...] = ()  # the last ones that the task has taken

    @property
    def resting(self) -> bool:
        """Whether it goes on only when somebody tells it to."""
        return self.status in (TaskStatus.WAITING, TaskStatus.PARKED, TaskStatus.PAUSED)


class _Termination(Frozen):
    """What `Runs.terminate` leaves as the output."""

    reason: str


def under_way(custom_status: str | None, at: datetime, held: TaskStatus | None = None) -> Standing:
    """A task that has not ended: what it says of itself. `held` by others: paused, or parked by Dapr."""
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


def ended(status: TaskStatus, at: datetime, output: str | None, failure: str | None) -> Standing:
    """A task that has ended, with what it returned or why it failed."""
    if status is not TaskStatus.COMPLETED:
        return Standing(status=status, at=at, error=failure or _why(output) or status.value)
    told = _read(TaskOutput, output)
    if told is None:
        return Standing(status=status, at=at)
    return Standing(status=status, at=at, category=told.category, result=told.result, decisions=told.decisions)


def _why(output: str | None) -> str | None:
    """Why a task was ended, as `task terminate` was told; what anybody else left there, as it stands."""
    told = _read(_Termination, output)
    return told.reason if told else output


def unknown(task_id: str) -> str:
    """Says that Dapr knows a task no more that has not ended as far as we know."""
    return f"not known to the workflow engine; `refund-agent task rerun {task_id}` begins it again"


def _read(model: type[M], text: str | None) -> M | None:
    try:
        return model.model_validate_json(text) if text else None
    except ValidationError:
        return None
