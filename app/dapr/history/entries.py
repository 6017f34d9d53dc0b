"""Dapr's history events, in order and indexed: the one file that knows their oddities. Pure.

A history is a list of turns. Each begins with `workflowStarted`, then come the triggers that had arrived (with the time
of their arrival, so before that of `workflowStarted`), then what the workflow's code asked for in answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dapr.ext.workflow._durabletask.internal import attestation_pb2

from app.dapr.history.model import Failure, Payload

ACTIONS = frozenset(
    {
        "taskScheduled",
        "timerCreated",
        "childWorkflowInstanceCreated",
        "detachedWorkflowInstanceCreated",
        "eventSent",
        "executionCompleted",
    }
)
_TASK_ENDS = frozenset({"taskCompleted", "taskFailed", "childWorkflowInstanceCompleted", "childWorkflowInstanceFailed"})
_SCHEDULES = frozenset({"taskScheduled", "timerCreated", "childWorkflowInstanceCreated"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. `body` is what its kind says; `turn` counts `workflowStarted`, 0 before the first."""

    index: int
    turn: int
    kind: str
    at: datetime
    event: Any
    body: Any

    @property
    def id(self) -> int:
        """The number that Dapr gave to an action; -1 for a trigger."""
        return int(self.event.eventId)


@dataclass(frozen=True)
class History:
    """All entries, with the ends of tasks and children by the id of their schedule, and the fired timers by theirs.

    fork: the entries with which a rerun begins, as Dapr forked it from another run (see `_fork`); else empty. What
    stands before them is a copy of the other run's history.
    repeats: schedules that Dapr wrote again, left out here (see `_without_repeats`).
    """

    entries: tuple[Entry, ...]
    ends: dict[int, Entry]
    fired: dict[int, Entry]
    fork: tuple[Entry, ...]
    repeats: int

    def of(self, *kinds: str) -> Iterator[Entry]:
        """The entries of these kinds, in order."""
        return (entry for entry in self.entries if entry.kind in kinds)

    def first(self, kind: str) -> Entry | None:
        """The first entry of this kind."""
        return next(self.of(kind), None)

    def inherited(self, entry: Entry) -> bool:
        """Whether an entry was copied from another run."""
        return bool(self.fork) and entry.index < self.fork[0].index

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.first("executionCompleted") is not None


def index(events: Iterable[Any]) -> History:
    """Reads the events in the order in which Dapr gives them."""
    everything = list(_entries(events))
    entries = tuple(_without_repeats(everything))
    ends: dict[int, Entry] = {}
    fired: dict[int, Entry] = {}
    for entry in entries:
        if entry.kind in _TASK_ENDS:
            ends.setdefault(entry.body.taskScheduledId, entry)
        elif entry.kind == "timerFired":
            fired.setdefault(entry.body.timerId, entry)
    return History(entries, ends, fired, _fork(entries), len(everything) - len(entries))


def _entries(events: Iterable[Any]) -> Iterator[Entry]:
    turn, at = 0, datetime.fromtimestamp(0, UTC)
    for number, event in enumerate(events):
        kind = event.WhichOneof("eventType") or ""
        turn += kind == "workflowStarted"
        # An event that an SDK carries over a continue-as-new has no time: it was there when the generation began.
        at = moment(event.timestamp) if event.timestamp.seconds else at
        yield Entry(number, turn, kind, at, event, getattr(event, kind) if kind else None)


def _without_repeats(everything: list[Entry]) -> Iterator[Entry]:
    """Drops a schedule that was written before. When a run asks for something in the very turn that pauses it, it asks
    again in each turn until it is resumed: the Python SDK does not look at what it has asked for meanwhile."""
    seen: set[int] = set()
    for entry in everything:
        if entry.kind not in _SCHEDULES or entry.id not in seen:
            yield entry
        if entry.kind in _SCHEDULES:
            seen.add(entry.id)


def _fork(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Where a run that was started by "rerun from event" begins: at the event that it reruns, which names the other
    run and comes last, after all that had not ended there and, done or not, every timer. A rerun may itself be rerun,
    so the last event that names a run counts."""
    marked = next((entry for entry in reversed(entries) if _names_a_run(entry)), None)
    if marked is None:
        return ()
    last = entries.index(marked)
    first = last
    while first and entries[first - 1].kind in _SCHEDULES:
        first -= 1
    return entries[first : last + 1]


def _names_a_run(entry: Entry) -> bool:
    return entry.kind in _SCHEDULES and bool(entry.body.HasField("rerunParentInstanceInfo"))


def rerun_of(history: History) -> str | None:
    """The instance whose history this one was forked from."""
    return str(history.fork[-1].body.rerunParentInstanceInfo.instanceID) if history.fork else None


def moment(timestamp: Any) -> datetime:
    """A protobuf time, cut to microseconds."""
    return timestamp.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


def payload(body: Any, field: str) -> Payload | None:
    """An optional text."""
    return Payload(getattr(body, field).value) if body.HasField(field) else None


def failure(details: Any) -> Failure:
    """Failure details without their stack trace, which may quote a customer."""
    inner = failure(details.innerFailure) if details.HasField("innerFailure") else None
    return Failure(details.errorType, details.errorMessage, inner)


def signer(end: Entry) -> str | None:
    """The digest of the certificate that vouches for the end of a task or child."""
    if not end.body.HasField("attestation"):
        return None
    kind = end.kind.startswith("task")
    shape = attestation_pb2.ActivityCompletionAttestationPayload if kind else _CHILD_PAYLOAD
    return str(shape.FromString(end.body.attestation.payload).signerCertDigest.hex()) or None


_CHILD_PAYLOAD = attestation_pb2.ChildCompletionAttestationPayload


# Dapr's history of a run event by event, as plain rows: times, names, ids, sizes, and no text of anybody.

# Which field of an event names the schedule that it ends, or the timer that it is.
_ENDS = {
    "taskCompleted": "taskScheduledId",
    "taskFailed": "taskScheduledId",
    "childWorkflowInstanceCompleted": "taskScheduledId",
    "childWorkflowInstanceFailed": "taskScheduledId",
    "timerFired": "timerId",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `turn`: how often the workflow's code had been run; `event_id`: Dapr's number of what the code asked
    for, None of what came from outside; `ends`: the number of what ends here; `attempt`: of a step, 1 for the first;
    `execution_id`: Dapr's taskExecutionId; `error`: the class of a failure; `size` in bytes."""

    number: int
    turn: int
    at: datetime
    kind: str
    name: str
    event_id: int | None
    ends: int | None
    attempt: int | None
    execution_id: str
    error: str
    size: int


def listed(events: Iterable[Any]) -> tuple[Event, ...]:
    """The events in the order in which Dapr gives them; what it wrote twice, once."""
    return tuple(_events(index(events)))


def _events(history: History) -> Iterator[Event]:
    begun: dict[int, Event] = {}  # by Dapr's number
    attempts: Counter[str] = Counter()
    names: dict[str, str] = {}  # of steps, by execution id
    for entry in history.entries:
        ends = getattr(entry.body, _ENDS[entry.kind]) if entry.kind in _ENDS else None
        of = begun.get(ends) if ends is not None else None
        execution_id = of.execution_id if of else _text(entry, "taskExecutionId")
        if entry.kind == "taskScheduled":
            attempts[execution_id] += 1
            names[execution_id] = _text(entry, "name")
        event = Event(
            number=entry.index + 1,
            turn=entry.turn,
            at=entry.at,
            kind=entry.kind,
            name=of.name if of else _name(entry, names),
            event_id=entry.id if entry.kind in ACTIONS else None,
            ends=ends,
            attempt=of.attempt if of else attempts[execution_id] or None if execution_id else None,
            execution_id=execution_id,
            error=_error(entry),
            size=entry.event.ByteSize(),
        )
        if event.event_id is not None:
            begun[event.event_id] = event
        yield event


def _name(entry: Entry, names: Mapping[str, str]) -> str:
    """Of a step, child, run or external event; a timer is named by what it is for."""
    if entry.kind == "timerCreated":
        origin = entry.body.WhichOneof("origin")
        if origin == "externalEvent":
            return str(entry.body.externalEvent.name)
        if origin == "activityRetry":
            return f"retry of {names.get(entry.body.activityRetry.taskExecutionId, '')}".strip()
    return _text(entry, "name")


def _text(entry: Entry, field: str) -> str:
    found = getattr(entry.body, field, "")
    return found if isinstance(found, str) else str(getattr(found, "value", ""))


def _error(entry: Entry) -> str:
    """The class of a failure; what it says may quote a customer."""
    details = getattr(entry.body, "failureDetails", None)
    return str(details.errorType) if details is not None else ""
