"""The executions of an attempt: one for each time that a worker started to work on it.

Dapr does not record an execution that was lost with its worker or sidecar: it hands out the attempt again, and the
history shows one attempt that took long. Therefore each worker logs an execution before it starts it
(`StartedExecution`). Together with the attempt's end in the history, the log shows which execution produced the result,
which were lost, when, and why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from app.dapr.history.causes import Cause, cause_of
from app.dapr.history.model import Attempt, AttemptOutcome

# A worker without a heartbeat for this long is gone.
GONE_AFTER = timedelta(seconds=30)


class ExecutionOutcome(StrEnum):
    """How an execution ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # lost: its result never reached the workflow
    OPEN = "open"  # its worker is working on it, or whether it was lost is not known yet
    REPEATED = "repeated"  # started after the attempt had ended, so its work was not needed


@dataclass(frozen=True, slots=True)
class StartedExecution:
    """A row of the execution log, with what is known of its worker.

    execution_id, event_id: the step and the attempt. number: 1 for the first execution of the attempt.
    lost_at: when the worker, still alive, lost the sidecar that waited for the result. seen_at: the worker's last
    heartbeat. stopped_at: when the worker had shut down as told. None if it did not happen or is not known.
    """

    execution_id: str
    event_id: int
    number: int
    worker: str
    started_at: datetime
    lost_at: datetime | None = None
    seen_at: datetime | None = None
    stopped_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of an attempt.

    ended_at: when its result was accepted or, as far as is known, when it was lost; None if open or repeated.
    cause: why it brought no result; None if it brought one or still may.
    """

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: ExecutionOutcome
    cause: Cause | None = None


def losses_are_certain(started: Iterable[StartedExecution], at: datetime) -> bool:
    """Whether the cause of each lost execution is certain at `at`. It is not while a worker without a heartbeat since
    the loss may be dead or only frozen. An execution is lost if another one of the same attempt follows."""
    by_attempt: defaultdict[tuple[str, int], list[StartedExecution]] = defaultdict(list)
    for execution in sorted(started, key=lambda execution: execution.number):
        by_attempt[execution.execution_id, execution.event_id].append(execution)
    return all(_loss_is_certain(*pair, at) for executions in by_attempt.values() for pair in pairwise(executions))


def _loss_is_certain(execution: StartedExecution, following: StartedExecution, at: datetime) -> bool:
    if execution.worker == following.worker or execution.lost_at is not None or execution.stopped_at is not None:
        return True
    return execution.seen_at is None or execution.seen_at > following.started_at or at - execution.seen_at >= GONE_AFTER


def executions(attempt: Attempt, started: Sequence[StartedExecution], at: datetime) -> tuple[Execution, ...]:
    """The executions of an attempt, oldest first, with their outcomes as known at `at`."""
    ordered = sorted(started, key=lambda execution: execution.number)
    decisive = _decisive_index(attempt, ordered)
    return tuple(
        _decisive_execution(attempt, execution, at)
        if index == decisive
        else _lost_execution(execution, ordered[index + 1], ordered[index + 1].started_at)
        if index < decisive
        else Execution(execution.number, execution.worker, execution.started_at, None, ExecutionOutcome.REPEATED)
        for index, execution in enumerate(ordered)
    )


def _decisive_index(attempt: Attempt, ordered: Sequence[StartedExecution]) -> int:
    """The index of the execution that brought the attempt's end, or still may: the last one that started before the
    end. If none did, because the clocks of two machines differ, it is the first one."""
    if attempt.ended_at is None:
        return len(ordered) - 1
    return max(sum(execution.started_at <= attempt.ended_at for execution in ordered) - 1, 0)


def idle(ordered: Iterable[Execution]) -> Iterator[tuple[datetime, datetime | None]]:
    """The times in which no worker worked on an attempt: from a lost execution to the start of the next one, or to None
    if no other followed. `ordered` are the executions of one attempt, oldest first."""
    lost_at: datetime | None = None
    for execution in ordered:
        if lost_at is not None:
            yield lost_at, execution.started_at
        lost_at = execution.ended_at if execution.outcome is ExecutionOutcome.INTERRUPTED else None
    if lost_at is not None:
        yield lost_at, None


def _decisive_execution(attempt: Attempt, execution: StartedExecution, at: datetime) -> Execution:
    if attempt.ended_at is not None:
        outcome = ExecutionOutcome.FAILED if attempt.outcome is AttemptOutcome.FAILED else ExecutionOutcome.COMPLETED
        return Execution(
            execution.number, execution.worker, execution.started_at, attempt.ended_at, outcome, cause_of(attempt)
        )
    if (
        _before(execution.lost_at, at)
        or _before(execution.stopped_at, at)
        or _before(execution.seen_at, at - GONE_AFTER)
    ):
        return _lost_execution(execution, None, at)
    return Execution(execution.number, execution.worker, execution.started_at, None, ExecutionOutcome.OPEN)


def _lost_execution(execution: StartedExecution, following: StartedExecution | None, by: datetime) -> Execution:
    """A lost execution. `by`: the latest moment of the loss, which is when the following execution started, or now."""
    cause, last_sign = _cause(execution, following, by)
    ended_at = min(max(last_sign or by, execution.started_at), by)
    return Execution(
        execution.number, execution.worker, execution.started_at, ended_at, ExecutionOutcome.INTERRUPTED, cause
    )


def _cause(
    execution: StartedExecution, following: StartedExecution | None, by: datetime
) -> tuple[Cause, datetime | None]:
    """Why the execution was lost, and the last moment at which it was known not to be lost, if there is one."""
    if _before(execution.lost_at, by) or (following is not None and following.worker == execution.worker):
        return Cause.SIDECAR_GONE, execution.lost_at
    if _before(execution.stopped_at, by):
        return Cause.WORKER_STOPPED, execution.stopped_at
    if execution.seen_at is not None and execution.seen_at > by:
        return Cause.SIDECAR_GONE, None  # the worker was still alive when its step went to another one
    return Cause.WORKER_GONE, execution.seen_at


def _before(moment: datetime | None, by: datetime) -> bool:
    return moment is not None and moment <= by
