"""When a model call was over that nobody saw end: what is known of it. The one place that says so. Pure.

A call whose worker or sidecar went away has no `ended_at`. It is taken to have been over when the first of these
happened after it began:

* its execution was lost: the last beat of its worker, or the moment at which that worker lost the sidecar that waited
  for the result (a beat before the call says nothing of it);
* its step was executed again, or asked a model again;
* an attempt at its step ended;
* its task ended.

A killed worker lived for up to a beat (a second) after its last one; all else is a latest end. None of it says when the
provider was done with the request. Who needs such a bound adds it to this answer and says so, as
`app/finance/reconciliation/claims.py` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.pricing.charge_types import CallRecord


@dataclass(frozen=True, slots=True)
class ExecutionTimes:
    """One execution of a call's step; `lost_at` is None for one that was not lost, or is not known to be."""

    worker: str
    began_at: datetime
    lost_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What is known of a call's step, in UTC: when it asked models, its executions, when attempts at it ended, and when
    its task did (None: not yet, or not known). Who knows the journal alone gives `asked` alone."""

    asked: Sequence[datetime]
    executions: Sequence[ExecutionTimes] = ()
    attempts_ended: Sequence[datetime] = ()
    task_ended_at: datetime | None = None


def call_end(call: CallRecord, step: StepTimes) -> datetime | None:
    """When the call was over, as far as is known: its own end, or what its step tells; None while it may be under way.
    Never before its start, whatever the clocks of two machines say."""
    if call.ended_at is not None:
        return max(call.ended_at, call.started_at)
    later = [at for at in step.asked if at > call.started_at]
    later += [execution.began_at for execution in step.executions if execution.began_at > call.started_at]
    own = _own_execution(call, step.executions)
    lost = [own.lost_at] if own is not None and own.lost_at is not None else []
    later += [at for at in (*step.attempts_ended, *lost) if at >= call.started_at]
    if step.task_ended_at is not None:
        later.append(max(step.task_ended_at, call.started_at))
    return min(later, default=None)


def _own_execution(call: CallRecord, executions: Sequence[ExecutionTimes]) -> ExecutionTimes | None:
    """The execution that made the call: the last that its worker had begun. One clock has told both."""
    executed = [
        execution
        for execution in executions
        if execution.worker == call.worker and execution.began_at <= call.started_at
    ]
    return max(executed, key=lambda run: run.began_at, default=None)
