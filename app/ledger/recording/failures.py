"""The failures of a task: executions that were lost with their worker or sidecar, and attempts that failed."""

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
    records = [failure for step in steps for failure in _failures_of_step(step, causes)]
    return tuple(sorted(records, key=lambda failure: (failure.at, failure.step, failure.attempt, failure.execution)))


def cause_of_call(record: TaskRecord, call: CallRecord) -> Cause | None:
    """Why a model call brought no result, if known (else `Cause.UNKNOWN`); None for a call that is settled or runs."""
    if call.state is CallState.FAILED:
        return cause_of_code(FailureCause.from_error(call.error))
    if call.state is not CallState.INTERRUPTED:
        return None
    step = next((candidate.step for candidate in record.steps if candidate.execution_id == call.execution_id), None)
    lost = [failure for failure in record.failures if failure.step == step and failure.kind is FailureKind.INTERRUPTED]
    causes = (loss.cause for loss in lost if loss.worker == call.worker and loss.at >= call.started_at)
    return next(causes, Cause.UNKNOWN)


def _failures_of_step(step: StepRecord, causes: Mapping[int, Cause | None]) -> Iterator[FailureRecord]:
    for attempt, following in zip_longest(step.attempts, step.attempts[1:]):
        yield from _interruptions(step, attempt)
        if attempt.outcome is AttemptOutcome.FAILED and attempt.ended_at is not None:
            last = next(
                (execution for execution in attempt.executions if execution.outcome is ExecutionOutcome.FAILED), None
            )
            yield FailureRecord(
                step=step.step,
                attempt=attempt.number,
                execution=last.number if last else 0,
                at=attempt.ended_at,
                resumed_at=_started_at(following) if following else None,
                kind=FailureKind.FAILED,
                cause=causes.get(attempt.event_id) or Cause.UNKNOWN,
                worker=last.worker if last else "",
            )


def _interruptions(step: StepRecord, attempt: AttemptRecord) -> Iterator[FailureRecord]:
    for execution, following in zip_longest(attempt.executions, attempt.executions[1:]):
        if execution.outcome is ExecutionOutcome.INTERRUPTED and execution.ended_at is not None:
            yield FailureRecord(
                step=step.step,
                attempt=attempt.number,
                execution=execution.number,
                at=execution.ended_at,
                resumed_at=following.started_at if following else None,
                kind=FailureKind.INTERRUPTED,
                cause=execution.cause or Cause.UNKNOWN,
                worker=execution.worker,
            )


def _started_at(attempt: AttemptRecord) -> datetime:
    """The start of the attempt's first execution; without one in the execution log, when it was scheduled."""
    return attempt.executions[0].started_at if attempt.executions else attempt.scheduled_at
