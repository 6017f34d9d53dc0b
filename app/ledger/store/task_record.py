"""The record of a task as frozen values: steps, attempts, executions, failures, calls and charges. Times are UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.dapr.history.causes import Cause
from app.dapr.history.executions import Execution, ExecutionOutcome
from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.models import AnsweredBy, CallState, DecisionView, Outcome, Refund, TaskStatus
from app.finance.call_end import ExecutionTimes, StepTimes, call_end
from app.pricing.charge_types import CallRecord, Charge


class FailureKind(StrEnum):
    """What became of the work."""

    INTERRUPTED = "interrupted"  # lost with its worker or sidecar; nobody was told
    FAILED = "failed"  # the attempt ended with an error


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A failed attempt, or an execution that was lost, with its step, attempt and execution (0: unknown).

    at: when it failed or was lost, as far as is known. resumed_at: when the next execution or attempt started; None if
    none has. cause: as far as it can be determined. worker: which worker executed it, empty if unknown.
    """

    step: int
    attempt: int
    execution: int
    at: datetime
    resumed_at: datetime | None
    kind: FailureKind
    cause: Cause
    worker: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt at a step: the workflow scheduled it once. `error` is the failure's type and message, empty when it
    did not fail; `event_id` the schedule's in the history. `executions`: each time that a worker began it, oldest
    first; none where no worker of ours wrote it down.
    """

    number: int
    scheduled_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome
    error: str = ""
    event_id: int = 0
    executions: tuple[Execution, ...] = ()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: a scheduled activity.

    step: its place in the task, from 1. name: the activity's. stage: one of the five. tool: the activity's name when it
    is no model's, else empty. active: its share of the task's active time, without overlap; lost: how much of that was
    in vain. writes: events that it left in the history. answered_by: who answered its model call; None without one.
    """

    step: int
    execution_id: str
    name: str
    stage: str
    tool: str
    active: timedelta
    lost: timedelta
    writes: int
    attempts: tuple[AttemptRecord, ...]
    answered_by: AnsweredBy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """The record of a task.

    parts: where its time went; they sum to the time from its start to its end (or to `projected_at`).
    pauses: the times in which it held nothing: waiting for a person, back-off, suspension, timers of its own.
    turns: how often the workflow's code was run. events, size: what its history holds, and its bytes.
    failures: what came to nothing, oldest first.
    calls: oldest first. charges: every line, corrections included, in the order of the steps.
    certain: whether it is known for sure why each execution was lost; not kept.
    trace_parent: W3C `traceparent` of the trace that daprd opened for it, empty without one.
    decisions: what people said about it, oldest first. A history knows less of them than the ledger: no notes, and
    nothing of what did not reach the task.
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
    parts: Mapping[TimePart, timedelta]
    pauses: tuple[Span, ...]
    turns: int
    events: int
    size: int
    steps: tuple[StepRecord, ...]
    failures: tuple[FailureRecord, ...]
    calls: tuple[CallRecord, ...]
    charges: tuple[Charge, ...]
    trace_parent: str = ""
    certain: bool = field(default=True, compare=False)
    decisions: tuple[DecisionView, ...] = ()

    @property
    def final(self) -> bool:
        """Whether nothing of it is expected to change any more: the task has ended, none of its model calls is under
        way, and what became of its workers is certain."""
        return (
            self.ended_at is not None
            and self.certain
            and all(call.state is not CallState.STARTED for call in self.calls)
        )

    @property
    def workers(self) -> tuple[str, ...]:
        """The worker processes that had a part in it, in the order of their first execution."""
        begun = [execution for step in self.steps for attempt in step.attempts for execution in attempt.executions]
        return tuple(
            dict.fromkeys(execution.worker for execution in sorted(begun, key=lambda execution: execution.started_at))
        )

    def calls_of(self, step: StepRecord) -> tuple[CallRecord, ...]:
        """The model calls of a step, oldest first."""
        return tuple(call for call in self.calls if call.execution_id == step.execution_id)

    def end_of(self, call: CallRecord) -> datetime | None:
        """When a model call was over, as far as is known, by the rule of `app/finance/call_end.py`; None while it may
        be under way."""
        attempts = [made for step in self.steps if step.execution_id == call.execution_id for made in step.attempts]
        known = StepTimes(
            asked=[other.started_at for other in self.calls if other.execution_id == call.execution_id],
            executions=[_times(execution) for attempt in attempts for execution in attempt.executions],
            attempts_ended=[attempt.ended_at for attempt in attempts if attempt.ended_at],
            task_ended_at=self.ended_at,
        )
        return call_end(call, known)

    def charges_of(self, step: StepRecord | None) -> tuple[Charge, ...]:
        """The charges of a step; those of the workflow itself for None."""
        execution_id = step.execution_id if step else ""
        return tuple(charge for charge in self.charges if charge.execution_id == execution_id)


def _times(execution: Execution) -> ExecutionTimes:
    lost = execution.outcome is ExecutionOutcome.INTERRUPTED
    return ExecutionTimes(execution.worker, execution.started_at, execution.ended_at if lost else None)
