"""Dapr's history of a run event by event, as plain rows: times, names, ids, sizes, and no text of anybody. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.dapr.history import entries
from app.dapr.history.entries import Entry, History

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
    return tuple(_events(entries.index(events)))


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
            event_id=entry.id if entry.kind in entries.ACTIONS else None,
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
