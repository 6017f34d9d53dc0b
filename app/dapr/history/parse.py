"""Parses Dapr's history events into a `WorkflowRun`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from app.dapr.history import entries, waits
from app.dapr.history.entries import ACTIONS, Entry, History
from app.dapr.history.model import (
    Attempt,
    AttemptOutcome,
    ChildRun,
    Failure,
    Parent,
    Replay,
    RetryPause,
    RunStatus,
    Stall,
    Step,
    Suspension,
    WorkflowRun,
)

# Steps and children with their attempts, and the pauses between them.
#
# Dapr does not number attempts: a retry is another `taskScheduled` with the same `taskExecutionId`, after a timer whose
# origin is `activityRetry`. Not all SDKs give a `taskExecutionId`; without one, a failure, then a timer, then an equal
# schedule is treated as a retry.

_RETRIES = {"activityRetry": "taskExecutionId", "childWorkflowRetry": "instanceId"}


@dataclass
class ParsedRetries:
    """Assigns schedules and retry timers to steps.

    step: the step's execution id by the event id of a `taskScheduled`. timer: the same by the event id of a retry
    timer; a child's instance id for its timers. repeated: event ids of schedules without execution id whose retry has
    been identified.
    """

    step: dict[int, str] = field(default_factory=dict)
    timer: dict[int, str] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)


def parse_retries(history: History) -> ParsedRetries:
    """Assigns each schedule and each retry timer of a history to its step or child."""
    retries = ParsedRetries()
    for entry in history.entries:
        if entry.kind == "taskScheduled":
            retries.step[entry.id] = entry.body.taskExecutionId or _infer_step(history, entry, retries)
        elif entry.kind == "timerCreated" and (origin := entry.body.WhichOneof("origin")) in _RETRIES:
            retries.timer[entry.id] = getattr(getattr(entry.body, origin), _RETRIES[origin])
    return retries


def steps(history: History, retries: ParsedRetries, app_id: str) -> tuple[Step, ...]:
    """All steps, in the order of their first schedule. `app_id` is the run's app."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.of("taskScheduled"):
        groups[retries.step[entry.id]].append(entry)
    return tuple(
        Step(
            execution_id=key,
            name=group[0].body.name,
            attempts=_attempts(history, group),
            input=entries.payload(group[0].body, "input"),
            app_id=_other_app(group[0], app_id),
        )
        for key, group in groups.items()
    )


def parse_children(history: History, app_id: str) -> tuple[ChildRun, ...]:
    """All child workflows, detached ones included, in the order of their first schedule."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in history.of("childWorkflowInstanceCreated", "detachedWorkflowInstanceCreated"):
        groups[entry.body.instanceId].append(entry)
    return tuple(_child(history, instance_id, group, app_id) for instance_id, group in groups.items())


def pauses(history: History, retries: ParsedRetries) -> tuple[RetryPause, ...]:
    """All pauses before a retry that were made in this run."""
    return tuple(
        RetryPause(
            of=retries.timer[entry.id],
            event_id=entry.id,
            started_at=entry.at,
            due_at=entries.moment(entry.body.fireAt),
            ended_at=fired.at if (fired := history.fired.get(entry.id)) else None,
            child=entry.body.WhichOneof("origin") == "childWorkflowRetry",
        )
        for entry in history.of("timerCreated")
        if entry.id in retries.timer and not history.inherited(entry)
    )


def _child(history: History, instance_id: str, group: list[Entry], app_id: str) -> ChildRun:
    body = group[0].body
    detached = group[0].kind == "detachedWorkflowInstanceCreated"
    return ChildRun(
        instance_id=instance_id,
        name="" if detached else body.name,
        attempts=_attempts(history, group),
        input=None if detached else entries.payload(body, "input"),
        app_id=_other_app(group[0], app_id),
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


def _other_app(schedule: Entry, app_id: str) -> str | None:
    """The app that executes a schedule; None if it is the run's own (`app_id`)."""
    target = str(schedule.event.router.targetAppID)
    return target if target and target != app_id else None


def _infer_step(history: History, schedule: Entry, retries: ParsedRetries) -> str:
    """The step of a schedule without execution id. It is a retry if a timer that fired in this turn was set in the turn
    in which the same activity with the same input was reported as failed; else it is a new step."""
    fired = {entry.body.timerId for entry in history.of("timerFired") if entry.turn == schedule.turn}
    for timer in (entry for entry in history.of("timerCreated") if entry.id in fired):
        if timer.body.WhichOneof("origin") in (None, "activityRetry") and not retries.timer.get(timer.id):
            failed = next(_equal_failures(history, timer.turn, schedule, retries.repeated), None)
            if failed is not None:
                retries.repeated.add(failed)
                retries.timer[timer.id] = retries.step[failed]
                return retries.step[failed]
    return f"#{schedule.id}"


def _equal_failures(history: History, turn: int, schedule: Entry, repeated: set[int]) -> Iterator[int]:
    """The event ids of earlier, equal schedules whose failure was reported in `turn`, without those in `repeated`."""
    for earlier in history.of("taskScheduled"):
        end = history.ends.get(earlier.id)
        failed = end is not None and end.kind == "taskFailed" and end.turn == turn
        equal = earlier.body.name == schedule.body.name and earlier.body.input == schedule.body.input
        if failed and equal and earlier.id not in repeated:
            yield earlier.id


_STATUS_OF_END = {
    1: RunStatus.COMPLETED,
    2: RunStatus.CONTINUED_AS_NEW,
    3: RunStatus.FAILED,
    4: RunStatus.CANCELED,
    5: RunStatus.TERMINATED,
}
_STALL_REASONS = ("PATCH_MISMATCH", "VERSION_NOT_AVAILABLE", "PAYLOAD_SIZE_EXCEEDED")


def parse(instance_id: str, events: Sequence[Any]) -> WorkflowRun:
    """Parses a whole history. `events` are Dapr's `HistoryEvent`s in order; a pending run has none."""
    history = entries.index(events)
    run = _outline(instance_id, history)
    retries, answers = parse_retries(history), waits.answers(history)
    retry_timers = frozenset(retries.timer)
    run_steps, children = steps(history, retries, run.app_id), parse_children(history, run.app_id)
    return replace(
        run,
        steps=run_steps,
        children=children,
        pauses=pauses(history, retries),
        timers=waits.timers(history, retry_timers),
        waits=waits.waits(history, answers, retry_timers),
        raised=waits.raised_events(history, answers),
        suspensions=_suspensions(history),
        stalls=_stalls(history),
        replays=_replays(history),
        signers=_signers(run_steps, children),
        repeats=history.repeats,
        events=len(events),
        size=sum(event.ByteSize() for event in events),
    )


def _outline(instance_id: str, history: History) -> WorkflowRun:
    """The run as far as its start and end describe it, without its parts."""
    started, ended = history.first("executionStarted"), history.first("executionCompleted")
    return WorkflowRun(
        instance_id=instance_id,
        name=started.body.name if started else "",
        status=_status(history, started, ended),
        started_at=_started_at(history, started),
        ended_at=ended.at if ended else None,
        execution_id=started.body.workflowInstance.executionId.value if started else "",
        version=_version(history, started),
        patches=_patches(history),
        app_id=_app_id(started),
        parent=_parent(started),
        continued=_is_continuation(history, started),
        rerun_of=entries.rerun_of(history),
        input=entries.payload(started.body, "input") if started else None,
        output=entries.payload(ended.body, "result") if ended else None,
        failure=_failure(ended),
        trace_parent=started.body.parentTraceContext.traceParent if started else "",
    )


def _status(history: History, started: Entry | None, ended: Entry | None) -> RunStatus:
    if ended is not None:
        return _STATUS_OF_END.get(ended.body.workflowStatus, RunStatus.COMPLETED)
    if history.entries and history.entries[-1].kind == "executionStalled":
        return RunStatus.STALLED
    if started is None:
        return RunStatus.PENDING
    last = None
    for entry in history.of("executionSuspended", "executionResumed"):
        last = entry.kind
    return RunStatus.SUSPENDED if last == "executionSuspended" else RunStatus.RUNNING


def _started_at(history: History, started: Entry | None) -> datetime | None:
    """When the run was requested; the requested start if that is later; for a rerun, when it was forked."""
    if started is None:
        return None
    if history.fork:
        return history.fork[0].at
    if started.body.HasField("scheduledStartTimestamp"):
        return max(started.at, entries.moment(started.body.scheduledStartTimestamp))
    return started.at


def _failure(ended: Entry | None) -> Failure | None:
    if ended is None or not ended.body.HasField("failureDetails"):
        return None
    return entries.failure(ended.body.failureDetails)


def _app_id(started: Entry | None) -> str:
    if started is None:
        return ""
    router = started.event.router
    return str(router.targetAppID or router.sourceAppID)


def _parent(started: Entry | None) -> Parent | None:
    if started is None or not started.body.HasField("parentInstance"):
        return None
    parent = started.body.parentInstance
    return Parent(parent.workflowInstance.instanceId, parent.name.value, parent.appID, parent.taskScheduledId)


def _is_continuation(history: History, started: Entry | None) -> bool:
    """Whether this generation follows another. Dapr does not number generations, but only in a following one the first
    `workflowStarted` has a router and is not later than `executionStarted`."""
    first = history.first("workflowStarted")
    return first is not None and started is not None and first.event.HasField("router") and started.at >= first.at


def _version(history: History, started: Entry | None) -> str:
    names = [entry.body.version.name for entry in history.of("workflowStarted") if entry.body.version.name]
    return names[-1] if names else started.body.version.value if started else ""


def _patches(history: History) -> tuple[str, ...]:
    patches = (patch for entry in history.of("workflowStarted") for patch in entry.body.version.patches)
    return tuple(dict.fromkeys(patches))


def _suspensions(history: History) -> tuple[Suspension, ...]:
    suspensions: list[Suspension] = []
    for entry in history.of("executionSuspended", "executionResumed"):
        is_suspended = bool(suspensions) and suspensions[-1].ended_at is None
        if entry.kind == "executionSuspended" and not is_suspended:
            suspensions.append(Suspension(entry.at, None, entry.body.input.value))
        elif entry.kind == "executionResumed" and is_suspended:
            suspensions[-1] = Suspension(suspensions[-1].started_at, entry.at, suspensions[-1].reason)
    return tuple(suspensions)


def _stalls(history: History) -> tuple[Stall, ...]:
    return tuple(
        Stall(
            at=entry.at,
            reason=_stall_reason(entry.body.reason),
            description=entry.body.description,
            ended_at=next((max(entry.at, later.at) for later in history.entries if later.index > entry.index), None),
        )
        for entry in history.of("executionStalled")
    )


def _stall_reason(number: int) -> str:
    return _STALL_REASONS[number] if number < len(_STALL_REASONS) else str(number)


def _replays(history: History) -> tuple[Replay, ...]:
    """The replays of this run, without those that a rerun copied from another."""
    replays: list[Replay] = []
    for entry in history.entries:
        if history.inherited(entry):
            continue
        if entry.kind == "workflowStarted":
            replays.append(Replay(entry.at, entry.at))
        elif entry.kind in ACTIONS and replays:
            replays[-1] = Replay(replays[-1].started_at, max(replays[-1].ended_at, entry.at))
    return tuple(replays)


def _signers(run_steps: Iterable[Step], children: Iterable[ChildRun]) -> tuple[str, ...]:
    attempts = [attempt for step in run_steps for attempt in step.attempts]
    attempts += [attempt for child in children for attempt in child.attempts]
    attempts.sort(key=lambda attempt: attempt.event_id)
    return tuple(dict.fromkeys(attempt.signer for attempt in attempts if attempt.signer))
