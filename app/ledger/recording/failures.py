"""The failures of a task: work that was lost with its worker or sidecar, and attempts that failed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest

from app.dapr.history.causes import Cause, cause_of, cause_of_code
from app.dapr.history.executions import ExecutionOutcome
from app.dapr.history.model import AttemptOutcome, WorkflowRun
from app.domain.errors import FailureCause
from app.domain.models import CallState
from app.ledger.store.task_record import AttemptRecord, FailureKind, FailureRecord, StepRecord, TaskRecord
from app.pricing.charge_types import CallRecord


def failures(run: WorkflowRun, steps: Sequence[StepRecord]) -> tuple[FailureRecord, ...]:
    """Every failure of a run, oldest first."""
    causes = {attempt.event_id: cause_of(attempt) for step in run.steps for attempt in step.attempts}
    found = [failure for step in steps for failure in _of_step(step, causes)]
    return tuple(sorted(found, key=lambda failure: (failure.at, failure.step, failure.attempt, failure.execution)))


def cause_of_call(record: TaskRecord, call: CallRecord) -> Cause | None:
    """Why a model call came to nothing, as far as it can be known; None for one that did not, or may still."""
    if call.state is CallState.FAILED:
        return cause_of_code(FailureCause.told(call.error))
    if call.state is not CallState.INTERRUPTED:
        return None
    step = next((candidate.step for candidate in record.steps if candidate.execution_id == call.execution_id), None)
    lost = [failure for failure in record.failures if failure.step == step and failure.kind is FailureKind.INTERRUPTED]
    theirs = (loss.cause for loss in lost if loss.worker == call.worker and loss.at >= call.started_at)
    return next(theirs, Cause.UNKNOWN)


def _of_step(step: StepRecord, causes: Mapping[int, Cause | None]) -> Iterator[FailureRecord]:
    for attempt, after in zip_longest(step.attempts, step.attempts[1:]):
        yield from _interrupted(step, attempt)
        if attempt.outcome is AttemptOutcome.FAILED and attempt.ended_at is not None:
            last = next(
                (execution for execution in attempt.executions if execution.outcome is ExecutionOutcome.FAILED), None
            )
            yield FailureRecord(
                step=step.step,
                attempt=attempt.number,
                execution=last.number if last else 0,
                at=attempt.ended_at,
                resumed_at=_begun(after) if after else None,
                kind=FailureKind.FAILED,
                cause=causes.get(attempt.event_id) or Cause.UNKNOWN,
                worker=last.worker if last else "",
            )


def _interrupted(step: StepRecord, attempt: AttemptRecord) -> Iterator[FailureRecord]:
    for execution, after in zip_longest(attempt.executions, attempt.executions[1:]):
        if execution.outcome is ExecutionOutcome.INTERRUPTED and execution.ended_at is not None:
            yield FailureRecord(
                step=step.step,
                attempt=attempt.number,
                execution=execution.number,
                at=execution.ended_at,
                resumed_at=after.started_at if after else None,
                kind=FailureKind.INTERRUPTED,
                cause=execution.cause or Cause.UNKNOWN,
                worker=execution.worker,
            )


def _begun(attempt: AttemptRecord) -> datetime:
    """When somebody began to work at it; when it was to be begun, if nobody wrote that down."""
    return attempt.executions[0].started_at if attempt.executions else attempt.scheduled_at
