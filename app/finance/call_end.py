"""The end of a model call whose end was not recorded.

A call whose worker or sidecar was lost has no `ended_at`. Its end is the first of these events after its start:

* its execution was lost: the last heartbeat of its worker, or the moment when the worker lost its sidecar (a heartbeat
  before the call is ignored);
* its step was executed again, or called a model again;
* an attempt of its step ended;
* its task ended.

A killed worker may have lived for up to a second after its last heartbeat; the other events are upper bounds. None of
them shows when the provider had finished the request: code that needs that adds its own tolerance, as
`app/finance/reconciliation/bill.py` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.pricing.charge_types import CallRecord


@dataclass(frozen=True, slots=True)
class ExecutionTimes:
    """One execution of a call's step; `lost_at` is None if the execution was not lost, or is not known to be."""

    worker: str
    started_at: datetime
    lost_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The known times of a call's step, in UTC: the starts of its model calls, its executions, the ends of its
    attempts, and the end of its task (None: not ended, or unknown). The journal alone shows only `calls_started`."""

    calls_started: Sequence[datetime]
    executions: Sequence[ExecutionTimes] = ()
    attempts_ended: Sequence[datetime] = ()
    task_ended_at: datetime | None = None


def call_end(call: CallRecord, step: StepTimes) -> datetime | None:
    """The end of the call: the recorded one, or the one that follows from its step; None while it may be in flight.
    It is never before the start of the call, even if the clocks of two machines differ."""
    if call.ended_at is not None:
        return max(call.ended_at, call.started_at)
    later = [at for at in step.calls_started if at > call.started_at]
    later += [execution.started_at for execution in step.executions if execution.started_at > call.started_at]
    own = _own_execution(call, step.executions)
    lost = [own.lost_at] if own is not None and own.lost_at is not None else []
    later += [at for at in (*step.attempts_ended, *lost) if at >= call.started_at]
    if step.task_ended_at is not None:
        later.append(max(step.task_ended_at, call.started_at))
    return min(later, default=None)


def _own_execution(call: CallRecord, executions: Sequence[ExecutionTimes]) -> ExecutionTimes | None:
    """The execution that made the call: the last one that its worker started before it. Both times are from one
    clock."""
    candidates = [
        execution
        for execution in executions
        if execution.worker == call.worker and execution.started_at <= call.started_at
    ]
    return max(candidates, key=lambda execution: execution.started_at, default=None)
