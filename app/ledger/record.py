"""All that the ledger knows of one task, as frozen values. Times are UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.cost.calls import CallRecord
from app.cost.values import Charge
from app.history.times import Part, Span
from app.history.values import Outcome as AttemptOutcome
from app.models import AnsweredBy, CallState, Outcome, Refund, TaskStatus


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One execution of a step. `error` is the failure's type and message, empty when it did not fail."""

    number: int
    scheduled_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome
    error: str = ""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: a scheduled activity.

    step: its place in the task, from 1. name: the activity's. stage: one of the five. tool: the activity's name when it
    is no model's, else empty. active: its share of the task's active time, without overlap. writes: events that it
    left in the history. answered_by: who answered its model call; None without one.
    """

    step: int
    execution_id: str
    name: str
    stage: str
    tool: str
    active: timedelta
    writes: int
    attempts: tuple[AttemptRecord, ...]
    answered_by: AnsweredBy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """The record of a task.

    parts: where its time went; they sum to the time from its start to its end (or to `projected_at`).
    pauses: the times in which it held nothing: waiting for a person, back-off, suspension, timers of its own.
    turns: how often the workflow's code was run. events, size: what its history holds, and its bytes.
    calls: oldest first. charges: every line, corrections included, in the order of the steps.
    trace_parent: W3C `traceparent` of the trace that daprd opened for it, empty without one.
    """

    task_id: str
    tenant: str
    agent: str
    workflow: str
    version: str
    execution_id: str
    rerun_of: str | None
    status: TaskStatus
    outcome: Outcome | None
    category: str
    refund: Refund | None
    refund_id: str | None
    started_at: datetime
    ended_at: datetime | None
    projected_at: datetime
    parts: Mapping[Part, timedelta]
    pauses: tuple[Span, ...]
    turns: int
    events: int
    size: int
    steps: tuple[StepRecord, ...]
    calls: tuple[CallRecord, ...]
    charges: tuple[Charge, ...]
    trace_parent: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing of it can change any more: the task has ended, and none of its model calls is under way."""
        return self.ended_at is not None and all(call.state is not CallState.STARTED for call in self.calls)

    def calls_of(self, step: StepRecord) -> tuple[CallRecord, ...]:
        """The model calls of a step, oldest first."""
        return tuple(call for call in self.calls if call.execution_id == step.execution_id)

    def charges_of(self, step: StepRecord | None) -> tuple[Charge, ...]:
        """The charges of a step; those of the workflow itself for None."""
        execution_id = step.execution_id if step else ""
        return tuple(charge for charge in self.charges if charge.execution_id == execution_id)
