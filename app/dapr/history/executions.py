"""The executions of an attempt: each time that a worker began to work at it. Pure.

Dapr writes nothing of an execution that was lost with its worker or sidecar: it hands the attempt out again, and the
history shows one attempt that took long. Workers therefore write down ahead what they begin (`Begun`); together with
the attempt's end in the history, that tells which execution brought it, which were lost, when and with whom.
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

# A worker that has said nothing for this long is gone.
GONE_AFTER = timedelta(seconds=30)


class ExecutionOutcome(StrEnum):
    """How an execution ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # it never ended, as far as the workflow knows
    OPEN = "open"  # its worker is at it, or nobody can tell
    REPEATED = "repeated"  # begun although the attempt had ended: work that nobody needed


@dataclass(frozen=True, slots=True)
class Begun:
    """What was written ahead of an execution, and what is known of its worker.

    lost_at: when the worker, alive, lost the sidecar that waited for the result. seen_at: its last sign of life;
    stopped_at: when it had stopped as it was told; both None where nothing is known of it.
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
    """One execution of an attempt. `ended_at`: when its result was taken, or when it was lost, as far as is known.
    `cause`: why it brought no result; None when it did, or may still."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: ExecutionOutcome
    cause: Cause | None = None


def fates_known(begun: Iterable[Begun], at: datetime) -> bool:
    """Whether it is certain at `at` why each execution was lost that another one followed: a worker that has not been
    heard of since may be gone, or only stand still."""
    of: defaultdict[tuple[str, int], list[Begun]] = defaultdict(list)
    for execution in sorted(begun, key=lambda execution: execution.number):
        of[execution.execution_id, execution.event_id].append(execution)
    return all(_fate_known(*pair, at) for executions in of.values() for pair in pairwise(executions))


def _fate_known(execution: Begun, following: Begun, at: datetime) -> bool:
    if execution.worker == following.worker or execution.lost_at is not None or execution.stopped_at is not None:
        return True
    return execution.seen_at is None or execution.seen_at > following.started_at or at - execution.seen_at >= GONE_AFTER


def executions(attempt: Attempt, begun: Sequence[Begun], at: datetime) -> tuple[Execution, ...]:
    """What became of execution execution of an attempt, oldest first, as it is known at `at`."""
    ordered = sorted(begun, key=lambda execution: execution.number)
    last = _bringing(attempt, ordered)
    return tuple(
        _last(attempt, execution, at)
        if place == last
        else _lost(execution, ordered[place + 1], ordered[place + 1].started_at)
        if place < last
        else Execution(execution.number, execution.worker, execution.started_at, None, ExecutionOutcome.REPEATED)
        for place, execution in enumerate(ordered)
    )


def _bringing(attempt: Attempt, ordered: Sequence[Begun]) -> int:
    """The place of the execution that brought the attempt's end, or may still: the last that began before it. The
    first one did, whatever the clocks of two machines say."""
    if attempt.ended_at is None:
        return len(ordered) - 1
    return max(sum(execution.started_at <= attempt.ended_at for execution in ordered) - 1, 0)


def idle(found: Iterable[Execution]) -> Iterator[tuple[datetime, datetime | None]]:
    """The times between an execution that was lost and the next: nobody worked at the attempt."""
    lost: datetime | None = None
    for execution in found:
        if lost is not None:
            yield lost, execution.started_at
        lost = execution.ended_at if execution.outcome is ExecutionOutcome.INTERRUPTED else None
    if lost is not None:
        yield lost, None


def _last(attempt: Attempt, execution: Begun, at: datetime) -> Execution:
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
        return _lost(execution, None, at)
    return Execution(execution.number, execution.worker, execution.started_at, None, ExecutionOutcome.OPEN)


def _lost(execution: Begun, following: Begun | None, by: datetime) -> Execution:
    """An execution that was lost, `by` the time when the next began or nobody could wait any longer."""
    cause, last_sign = _cause(execution, following, by)
    ended_at = min(max(last_sign or by, execution.started_at), by)
    return Execution(
        execution.number, execution.worker, execution.started_at, ended_at, ExecutionOutcome.INTERRUPTED, cause
    )


def _cause(execution: Begun, following: Begun | None, by: datetime) -> tuple[Cause, datetime | None]:
    """Why it was lost, and the last moment at which it was not yet, where that is known."""
    if _before(execution.lost_at, by) or (following is not None and following.worker == execution.worker):
        return Cause.SIDECAR_GONE, execution.lost_at
    if _before(execution.stopped_at, by):
        return Cause.WORKER_STOPPED, execution.stopped_at
    if execution.seen_at is not None and execution.seen_at > by:
        return Cause.SIDECAR_GONE, None  # it lives on, and its work was given to another
    return Cause.WORKER_GONE, execution.seen_at


def _before(moment: datetime | None, by: datetime) -> bool:
    return moment is not None and moment <= by
