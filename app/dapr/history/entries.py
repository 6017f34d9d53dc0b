"""Dapr's history events, indexed (`History`) and as plain rows (`Event`). Peculiarities of Dapr's format stay here.

A history is a list of turns. A turn starts with `workflowStarted`. Next come its triggers, with the time of their
arrival, so their time is earlier than that of `workflowStarted`. Last come the actions that the workflow's code
scheduled in answer.
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
    """One event of a history.

    index: place in the history, from 0. turn: number of `workflowStarted` so far, 0 before the first. kind: name of the
    field that is set in the protobuf message, such as `taskScheduled`; body: that field.
    """

    index: int
    turn: int
    kind: str
    at: datetime
    event: Any
    body: Any

    @property
    def id(self) -> int:
        """Dapr's number of an action; -1 for a trigger."""
        return int(self.event.eventId)


@dataclass(frozen=True)
class History:
    """The entries of a run's history, indexed.

    ends: the ends of tasks and children, by the id of their schedule. fired: the fired timers, by the timer's id.
    fork: of a rerun that Dapr forked from another run, the entries with which it starts (see `_fork`); the entries
    before them are copies of the other run's history. Empty for any other run.
    repeats: number of schedules that Dapr wrote more than once; they are left out here (see `_without_repeats`).
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
    """Indexes the events of a history; `events` are in Dapr's order."""
    all_entries = list(_entries(events))
    entries = tuple(_without_repeats(all_entries))
    ends: dict[int, Entry] = {}
    fired: dict[int, Entry] = {}
    for entry in entries:
        if entry.kind in _TASK_ENDS:
            ends.setdefault(entry.body.taskScheduledId, entry)
        elif entry.kind == "timerFired":
            fired.setdefault(entry.body.timerId, entry)
    return History(entries, ends, fired, _fork(entries), len(all_entries) - len(entries))


def _entries(events: Iterable[Any]) -> Iterator[Entry]:
    turn, at = 0, datetime.fromtimestamp(0, UTC)
    for number, event in enumerate(events):
        kind = event.WhichOneof("eventType") or ""
        turn += kind == "workflowStarted"
        # An event that an SDK carries over a continue-as-new has no time: it was there when the generation started.
        at = moment(event.timestamp) if event.timestamp.seconds else at
        yield Entry(number, turn, kind, at, event, getattr(event, kind) if kind else None)


def _without_repeats(all_entries: list[Entry]) -> Iterator[Entry]:
    """Drops schedules that were written before. If a run schedules something in the turn that pauses it, the Python SDK
    schedules it again in each turn until the resume."""
    seen: set[int] = set()
    for entry in all_entries:
        if entry.kind not in _SCHEDULES or entry.id not in seen:
            yield entry
        if entry.kind in _SCHEDULES:
            seen.add(entry.id)


def _fork(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The entries with which a run starts that was forked by "rerun from event"; empty for any other run.

    Dapr writes them as one block: every timer and whatever had not ended in the other run, and last the rerun event,
    which names the other run. A rerun may itself be rerun, so the last event that names a run counts.
    """
    rerun_event = next((entry for entry in reversed(entries) if _names_a_run(entry)), None)
    if rerun_event is None:
        return ()
    last = entries.index(rerun_event)
    first = last
    while first and entries[first - 1].kind in _SCHEDULES:
        first -= 1
    return entries[first : last + 1]


def _names_a_run(entry: Entry) -> bool:
    return entry.kind in _SCHEDULES and bool(entry.body.HasField("rerunParentInstanceInfo"))


def rerun_of(history: History) -> str | None:
    """The id of the instance whose history this one was forked from; None if it was not."""
    return str(history.fork[-1].body.rerunParentInstanceInfo.instanceID) if history.fork else None


def moment(timestamp: Any) -> datetime:
    """A protobuf timestamp as a UTC time, cut to microseconds."""
    return timestamp.ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]


def payload(body: Any, field: str) -> Payload | None:
    """The optional text in a field of an event's body; None if it is not set."""
    return Payload(getattr(body, field).value) if body.HasField(field) else None


def failure(details: Any) -> Failure:
    """Failure details without their stack trace, which may quote a customer."""
    inner = failure(details.innerFailure) if details.HasField("innerFailure") else None
    return Failure(details.errorType, details.errorMessage, inner)


def signer(end: Entry) -> str | None:
    """The digest (hex) of the certificate that attests the end of a task or child; None without an attestation."""
    if not end.body.HasField("attestation"):
        return None
    is_task = end.kind.startswith("task")
    message: Any = (
        attestation_pb2.ActivityCompletionAttestationPayload
        if is_task
        else attestation_pb2.ChildCompletionAttestationPayload
    )
    return str(message.FromString(end.body.attestation.payload).signerCertDigest.hex()) or None


# The field of an ending event that holds the id of the schedule or timer that it ends.
_ENDED_ID_FIELD = {
    "taskCompleted": "taskScheduledId",
    "taskFailed": "taskScheduledId",
    "childWorkflowInstanceCompleted": "taskScheduledId",
    "childWorkflowInstanceFailed": "taskScheduledId",
    "timerFired": "timerId",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a plain row, without any text that could quote a customer.

    number: place in the history, from 1. turn: number of turns so far. event_id: Dapr's number of an action; None for
    an event from outside. ends: the event_id of the action that ends here. attempt: of a step, 1 for the first.
    execution_id: Dapr's `taskExecutionId`. error: the class of a failure. size: in bytes.
    """

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


def list_events(events: Iterable[Any]) -> tuple[Event, ...]:
    """The rows of a history in Dapr's order. A schedule that Dapr wrote more than once is listed once."""
    return tuple(_events(index(events)))


def _events(history: History) -> Iterator[Event]:
    actions: dict[int, Event] = {}  # by event_id
    attempts: Counter[str] = Counter()
    names: dict[str, str] = {}  # of steps, by execution id
    for entry in history.entries:
        ends = getattr(entry.body, _ENDED_ID_FIELD[entry.kind]) if entry.kind in _ENDED_ID_FIELD else None
        action = actions.get(ends) if ends is not None else None
        execution_id = action.execution_id if action else _text(entry, "taskExecutionId")
        if entry.kind == "taskScheduled":
            attempts[execution_id] += 1
            names[execution_id] = _text(entry, "name")
        event = Event(
            number=entry.index + 1,
            turn=entry.turn,
            at=entry.at,
            kind=entry.kind,
            name=action.name if action else _name(entry, names),
            event_id=entry.id if entry.kind in ACTIONS else None,
            ends=ends,
            attempt=action.attempt if action else attempts[execution_id] or None if execution_id else None,
            execution_id=execution_id,
            error=_error(entry),
            size=entry.event.ByteSize(),
        )
        if event.event_id is not None:
            actions[event.event_id] = event
        yield event


def _name(entry: Entry, names: Mapping[str, str]) -> str:
    """The name of the step, child, run or external event; of a timer, what it is for."""
    if entry.kind == "timerCreated":
        origin = entry.body.WhichOneof("origin")
        if origin == "externalEvent":
            return str(entry.body.externalEvent.name)
        if origin == "activityRetry":
            return f"retry of {names.get(entry.body.activityRetry.taskExecutionId, '')}".strip()
    return _text(entry, "name")


def _text(entry: Entry, field: str) -> str:
    value = getattr(entry.body, field, "")
    return value if isinstance(value, str) else str(getattr(value, "value", ""))


def _error(entry: Entry) -> str:
    """The class of a failure. Not its message, which may quote a customer."""
    details = getattr(entry.body, "failureDetails", None)
    return str(details.errorType) if details is not None else ""
