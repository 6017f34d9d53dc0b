"""Dapr's history events to a run. Pure; `entries.py`, `step_parsing.py` and `waits.py` each know one part of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.dapr.history import entries, step_parsing, waits
from app.dapr.history.entries import ACTIONS, Entry, History
from app.dapr.history.history_values import Failure, RunStatus
from app.dapr.history.model import ChildRun, Parent, Replay, Stall, Step, Suspension, WorkflowRun

_ENDS = {
    1: RunStatus.COMPLETED,
    2: RunStatus.CONTINUED_AS_NEW,
    3: RunStatus.FAILED,
    4: RunStatus.CANCELED,
    5: RunStatus.TERMINATED,
}
_STALLED = ("PATCH_MISMATCH", "VERSION_NOT_AVAILABLE", "PAYLOAD_SIZE_EXCEEDED")


def parse(instance_id: str, events: Sequence[Any]) -> WorkflowRun:
    """Reads a whole history. `events` are Dapr's `HistoryEvent`s in their order; none is a run that is pending."""
    history = entries.index(events)
    run = _outline(instance_id, history)
    retries, answers = step_parsing.retries(history), waits.answers(history)
    retry_timers = frozenset(retries.timer)
    found, children = step_parsing.steps(history, retries, run.app_id), step_parsing.children(history, run.app_id)
    return replace(
        run,
        steps=found,
        children=children,
        pauses=step_parsing.pauses(history, retries),
        timers=waits.timers(history, retry_timers),
        waits=waits.waits(history, answers, retry_timers),
        raised=waits.raised(history, answers),
        suspensions=_suspensions(history),
        stalls=_stalls(history),
        replays=_replays(history),
        signers=_signers(found, children),
        repeats=history.repeats,
        events=len(events),
        size=sum(event.ByteSize() for event in events),
    )


def _outline(instance_id: str, history: History) -> WorkflowRun:
    """What the run's start and end say."""
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
        continued=_continued(history, started),
        rerun_of=entries.rerun_of(history),
        input=entries.payload(started.body, "input") if started else None,
        output=entries.payload(ended.body, "result") if ended else None,
        failure=_failure(ended),
        trace_parent=started.body.parentTraceContext.traceParent if started else "",
    )


def _status(history: History, started: Entry | None, ended: Entry | None) -> RunStatus:
    if ended is not None:
        return _ENDS.get(ended.body.workflowStatus, RunStatus.COMPLETED)
    if history.entries and history.entries[-1].kind == "executionStalled":
        return RunStatus.STALLED
    if started is None:
        return RunStatus.PENDING
    last = None
    for entry in history.of("executionSuspended", "executionResumed"):
        last = entry.kind
    return RunStatus.SUSPENDED if last == "executionSuspended" else RunStatus.RUNNING


def _started_at(history: History, started: Entry | None) -> datetime | None:
    """When the run was asked for, or when it was to begin at the earliest, or when it was forked from another."""
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


def _continued(history: History, started: Entry | None) -> bool:
    """Only a generation that follows another begins with a `workflowStarted` that knows its app, and only there the
    start is not older than it. Dapr keeps no number of the generation that it shows."""
    first = history.first("workflowStarted")
    return first is not None and started is not None and first.event.HasField("router") and started.at >= first.at


def _version(history: History, started: Entry | None) -> str:
    named = [entry.body.version.name for entry in history.of("workflowStarted") if entry.body.version.name]
    return named[-1] if named else started.body.version.value if started else ""


def _patches(history: History) -> tuple[str, ...]:
    patches = (patch for entry in history.of("workflowStarted") for patch in entry.body.version.patches)
    return tuple(dict.fromkeys(patches))


def _suspensions(history: History) -> tuple[Suspension, ...]:
    found: list[Suspension] = []
    for entry in history.of("executionSuspended", "executionResumed"):
        open_now = bool(found) and found[-1].ended_at is None
        if entry.kind == "executionSuspended" and not open_now:
            found.append(Suspension(entry.at, None, entry.body.input.value))
        elif entry.kind == "executionResumed" and open_now:
            found[-1] = Suspension(found[-1].started_at, entry.at, found[-1].reason)
    return tuple(found)


def _stalls(history: History) -> tuple[Stall, ...]:
    return tuple(
        Stall(
            at=entry.at,
            reason=_STALLED[entry.body.reason] if entry.body.reason < len(_STALLED) else str(entry.body.reason),
            description=entry.body.description,
            ended_at=_next_at(history, entry),
        )
        for entry in history.of("executionStalled")
    )


def _next_at(history: History, entry: Entry) -> datetime | None:
    return next((max(entry.at, later.at) for later in history.entries if later.index > entry.index), None)


def _replays(history: History) -> tuple[Replay, ...]:
    """The times that the code was run; a rerun's copied ones belong to the other run."""
    found: list[Replay] = []
    for entry in history.entries:
        if history.inherited(entry):
            continue
        if entry.kind == "workflowStarted":
            found.append(Replay(entry.at, entry.at))
        elif entry.kind in ACTIONS and found:
            found[-1] = Replay(found[-1].started_at, max(found[-1].ended_at, entry.at))
    return tuple(found)


def _signers(found: Iterable[Step], children: Iterable[ChildRun]) -> tuple[str, ...]:
    attempts = [attempt for step in found for attempt in step.attempts]
    attempts += [attempt for child in children for attempt in child.attempts]
    attempts.sort(key=lambda attempt: attempt.event_id)
    return tuple(dict.fromkeys(attempt.signer for attempt in attempts if attempt.signer))
