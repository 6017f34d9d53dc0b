"""Steps and children with their attempts, and the pauses between them. Pure.

Dapr counts no attempts: a retry is another `taskScheduled` with the same `taskExecutionId`, after a timer whose origin
is `activityRetry`. Where the worker's SDK gives no `taskExecutionId` (not all do), the order of failure, timer and
equal schedule tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from app.dapr.history import entries
from app.dapr.history.entries import Entry, History
from app.dapr.history.history_values import AttemptOutcome
from app.dapr.history.model import Attempt, ChildRun, RetryPause, Step

_RETRIES = {"activityRetry": "taskExecutionId", "childWorkflowRetry": "instanceId"}


@dataclass
class Retries:
    """Which step each `taskScheduled` belongs to, and which step each retry timer waits for, by event id. `repeated`
    are the unnamed schedules whose retry is found."""

    step: dict[int, str] = field(default_factory=dict)
    timer: dict[int, str] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)


def retries(history: History) -> Retries:
    """Sorts schedules and retry timers to their steps."""
    found = Retries()
    for entry in history.entries:
        if entry.kind == "taskScheduled":
            found.step[entry.id] = entry.body.taskExecutionId or _unnamed(history, entry, found)
        elif entry.kind == "timerCreated" and (origin := entry.body.WhichOneof("origin")) in _RETRIES:
            found.timer[entry.id] = getattr(getattr(entry.body, origin), _RETRIES[origin])
    return found


def steps(history: History, found: Retries, app_id: str) -> tuple[Step, ...]:
    """All steps, in the order of their first schedule."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.of("taskScheduled"):
        groups[found.step[entry.id]].append(entry)
    return tuple(
        Step(
            execution_id=key,
            name=group[0].body.name,
            attempts=_attempts(history, group),
            input=entries.payload(group[0].body, "input"),
            app_id=_elsewhere(group[0], app_id),
        )
        for key, group in groups.items()
    )


def children(history: History, app_id: str) -> tuple[ChildRun, ...]:
    """All child workflows, and those that were started and let go."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.of("childWorkflowInstanceCreated", "detachedWorkflowInstanceCreated"):
        groups[entry.body.instanceId].append(entry)
    return tuple(_child(history, instance_id, group, app_id) for instance_id, group in groups.items())


def pauses(history: History, found: Retries) -> tuple[RetryPause, ...]:
    """All pauses before a retry."""
    return tuple(
        RetryPause(
            of=found.timer[entry.id],
            event_id=entry.id,
            started_at=entry.at,
            due_at=entries.moment(entry.body.fireAt),
            ended_at=fired.at if (fired := history.fired.get(entry.id)) else None,
            child=entry.body.WhichOneof("origin") == "childWorkflowRetry",
        )
        for entry in history.of("timerCreated")
        if entry.id in found.timer and not history.inherited(entry)
    )


def _child(history: History, instance_id: str, group: list[Entry], app_id: str) -> ChildRun:
    body = group[0].body
    detached = group[0].kind == "detachedWorkflowInstanceCreated"
    return ChildRun(
        instance_id=instance_id,
        name="" if detached else body.name,
        attempts=_attempts(history, group),
        input=None if detached else entries.payload(body, "input"),
        app_id=_elsewhere(group[0], app_id),
        detached=detached,
    )


def _attempts(history: History, schedules: Iterable[Entry]) -> tuple[Attempt, ...]:
    return tuple(_attempt(history, number, entry) for number, entry in enumerate(schedules, 1))


def _attempt(history: History, number: int, schedule: Entry) -> Attempt:
    end = history.ends.get(schedule.id)
    inherited = history.inherited(schedule)
    if end is None:
        outcome = AttemptOutcome.LOST if history.over else AttemptOutcome.OPEN
        return Attempt(number, schedule.id, schedule.at, None, outcome, inherited=inherited)
    failed = end.kind.endswith("Failed")
    return Attempt(
        number=number,
        event_id=schedule.id,
        scheduled_at=schedule.at,
        ended_at=end.at,
        outcome=AttemptOutcome.FAILED if failed else AttemptOutcome.COMPLETED,
        failure=entries.failure(end.body.failureDetails) if failed else None,
        result=None if failed else entries.payload(end.body, "result"),
        signer=entries.signer(end),
        inherited=inherited,
    )


def _elsewhere(schedule: Entry, app_id: str) -> str | None:
    target = str(schedule.event.router.targetAppID)
    return target if target and target != app_id else None


def _unnamed(history: History, schedule: Entry, found: Retries) -> str:
    """The step of a schedule without execution id. It is a retry when a timer that this turn heard was set in the turn
    that heard of the failure of the same activity with the same input; else a step of its own."""
    for timer in _heard_timers(history, schedule.turn):
        if timer.body.WhichOneof("origin") in (None, "activityRetry") and not found.timer.get(timer.id):
            failed = next(_failed_in(history, timer.turn, schedule, found.repeated), None)
            if failed is not None:
                found.repeated.add(failed)
                found.timer[timer.id] = found.step[failed]
                return found.step[failed]
    return f"#{schedule.id}"


def _heard_timers(history: History, turn: int) -> list[Entry]:
    heard = {entry.body.timerId for entry in history.of("timerFired") if entry.turn == turn}
    return [entry for entry in history.of("timerCreated") if entry.id in heard]


def _failed_in(history: History, turn: int, schedule: Entry, repeated: set[int]) -> Iterator[int]:
    """The event ids of earlier, equal schedules whose failure was heard in `turn` and whose retry is not found yet."""
    for earlier in history.of("taskScheduled"):
        end = history.ends.get(earlier.id)
        failed = end is not None and end.kind == "taskFailed" and end.turn == turn
        equal = earlier.body.name == schedule.body.name and earlier.body.input == schedule.body.input
        if failed and equal and earlier.id not in repeated:
            yield earlier.id
