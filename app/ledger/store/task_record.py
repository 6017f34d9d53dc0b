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
    """How work failed."""

    INTERRUPTED = "interrupted"  # lost with its worker or sidecar; the workflow got no error
    FAILED = "failed"  # the attempt ended with an error


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A failed attempt, or a lost execution, with its step, attempt and execution (0: unknown).

    at: when it failed, or was lost at the latest estimate. resumed_at: when the next execution or attempt started; None
    if none has. worker: the worker that executed it; empty if unknown.
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
    """One attempt at a step: one scheduling by the workflow.

    error: type and message of its failure; empty if it did not fail. event_id: of its schedule in the history.
    executions: from the execution log, oldest first; empty if no worker of ours has executed it.
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

    step: its position in the task, from 1. name: the activity's. stage: one of the five. tool: the activity's name if
    it calls no model, else empty. active: its share of the task's active time, without overlap; lost: the part of it
    that brought no result. writes: the number of its events in the history. answered_by: where the answer to its model
    call came from; None without a call.
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

    parts: its time by use; they sum to the time from its start to its end (or to `projected_at`).
    pauses: the times in which it was idle: waiting for a person, back-off, suspension, its own timers.
    turns: how often the workflow's code ran. events, size: number of events and bytes of its history.
    failures, calls, decisions: oldest first. charges: all, including corrections, in the order of the steps.
    certain: whether the end of each execution is known for sure; not saved.
    trace_parent: W3C `traceparent` of the trace that daprd opened for it; empty without one.
    decisions: from a history, without notes and without attempts that did not reach the task; the ledger has both.
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
        """Whether the record cannot change any more: the task has ended, none of its model calls is running, and the
        end of each of its executions is certain."""
        return (
            self.ended_at is not None
            and self.certain
            and all(call.state is not CallState.STARTED for call in self.calls)
        )

    @property
    def workers(self) -> tuple[str, ...]:
        """The worker processes that worked on the task, in the order of their first execution."""
        executions = [execution for step in self.steps for attempt in step.attempts for execution in attempt.executions]
        executions.sort(key=lambda execution: execution.started_at)
        return tuple(dict.fromkeys(execution.worker for execution in executions))

    def calls_of(self, step: StepRecord) -> tuple[CallRecord, ...]:
        """The model calls of a step, oldest first."""
        return tuple(call for call in self.calls if call.execution_id == step.execution_id)

    def end_of(self, call: CallRecord) -> datetime | None:
        """When a model call ended, or must have ended, by the rule of `app/finance/call_end.py`; None while it may
        still run."""
        attempts = [
            attempt for step in self.steps if step.execution_id == call.execution_id for attempt in step.attempts
        ]
        times = StepTimes(
            calls_started=[other.started_at for other in self.calls if other.execution_id == call.execution_id],
            executions=[_execution_times(execution) for attempt in attempts for execution in attempt.executions],
            attempts_ended=[attempt.ended_at for attempt in attempts if attempt.ended_at],
            task_ended_at=self.ended_at,
        )
        return call_end(call, times)

    def charges_of(self, step: StepRecord | None) -> tuple[Charge, ...]:
        """The charges of a step; with None, those of the workflow itself."""
        execution_id = step.execution_id if step else ""
        return tuple(charge for charge in self.charges if charge.execution_id == execution_id)


def _execution_times(execution: Execution) -> ExecutionTimes:
    lost = execution.outcome is ExecutionOutcome.INTERRUPTED
    return ExecutionTimes(execution.worker, execution.started_at, execution.ended_at if lost else None)
