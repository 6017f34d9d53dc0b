"""Waits for external events, the raised events, and the timers of the workflow's own code.

A wait is a timer whose origin is `externalEvent`; without a time limit, its fire time is in the year 9999. An event
answers the oldest open wait of its name (case-insensitive). An event without an open wait is kept by the SDK, and a
later wait that finds it leaves no trace in the history. So if several events of one name arrive in one turn, the
history does not show which of them a wait of that turn got; the first is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from app.dapr.history import entries
from app.dapr.history.entries import ACTIONS, Entry, History
from app.dapr.history.model import RaisedEvent, Timer, Wait, WaitOutcome

_NEVER_SECONDS = 253402300799  # 9999-12-31T23:59:59Z


@dataclass
class Answers:
    """Waits and the events that answered them.

    of_wait: the event, by the event id of the wait. of_event: the event id of the wait, by the index of the event.
    """

    of_wait: dict[int, Entry] = field(default_factory=dict)
    of_event: dict[int, int] = field(default_factory=dict)

    def add(self, wait: Entry, event: Entry) -> None:
        """Adds a wait and the event that answered it."""
        self.of_wait[wait.id] = event
        self.of_event[event.index] = wait.id


def event_name(timer: Entry) -> str | None:
    """The name of the external event that a timer waits for, empty if it is unknown; None if it waits for none."""
    origin = timer.body.WhichOneof("origin")
    if origin == "externalEvent":
        return str(timer.body.externalEvent.name)
    if origin is None and timer.body.HasField("name"):  # the form of older SDKs
        return str(timer.body.name)
    if origin is None and timer.body.fireAt.seconds == _NEVER_SECONDS:
        return ""
    return None


def answers(history: History) -> Answers:
    """Pairs waits with events as the SDK did."""
    moved = history.fork[:-1]
    pairing = _Pairing(moved)
    for entry in history.entries:
        if entry not in moved:
            pairing.add(entry)
    pairing.end_turn()
    return pairing.answers


def waits(history: History, pairs: Answers, retry_timers: frozenset[int]) -> tuple[Wait, ...]:
    """All waits that left a trace, in the order of the code. In a rerun that differs from the history's order, because
    Dapr moves old waits to the end. `retry_timers`: event ids of timers that are no waits."""
    ordered = sorted(history.of("timerCreated"), key=lambda timer: timer.id)
    return tuple(
        _wait(history, timer, name, pairs.of_wait.get(timer.id))
        for timer in ordered
        if (name := event_name(timer)) is not None and timer.id not in retry_timers and not history.inherited(timer)
    )


def raised_events(history: History, pairs: Answers) -> tuple[RaisedEvent, ...]:
    """All external events that reached the run, with the waits that they answered."""
    return tuple(
        RaisedEvent(
            name=entry.body.name,
            at=entry.at,
            payload=entries.payload(entry.body, "input"),
            wait=pairs.of_event.get(entry.index),
        )
        for entry in history.of("eventRaised")
    )


def timers(history: History, retry_timers: frozenset[int]) -> tuple[Timer, ...]:
    """The timers that the workflow's own code set, without waits and without pauses before a retry."""
    return tuple(
        Timer(
            event_id=timer.id,
            started_at=timer.at,
            due_at=entries.moment(timer.body.fireAt),
            ended_at=fired.at if (fired := history.fired.get(timer.id)) else None,
        )
        for timer in history.of("timerCreated")
        if event_name(timer) is None and timer.id not in retry_timers and not history.inherited(timer)
    )


def _wait(history: History, timer: Entry, name: str, answer: Entry | None) -> Wait:
    fired = history.fired.get(timer.id)
    end = answer or fired
    if answer:
        outcome = WaitOutcome.ANSWERED
    elif fired:
        outcome = WaitOutcome.TIMED_OUT
    else:
        outcome = WaitOutcome.ABANDONED if history.over else WaitOutcome.OPEN
    limited = timer.body.fireAt.seconds != _NEVER_SECONDS
    return Wait(
        name=name,
        event_id=timer.id,
        started_at=timer.at,
        due_at=entries.moment(timer.body.fireAt) if limited else None,
        # If the answer arrived before the wait started, the wait took no time.
        ended_at=max(end.at, timer.at) if end else None,
        outcome=outcome,
        answer=entries.payload(answer.body, "input") if answer else None,
    )


def _event_awaited(action: Entry) -> str | None:
    return event_name(action) if action.kind == "timerCreated" else None


class _Pairing:
    """Replays a history as the SDK does, as far as the history shows it, and pairs waits with events.

    In a history, the waits of a turn stand after its events, although the code may have started a wait before the SDK
    showed it those events. So they are paired at the turn's end. Events that arrive while the run is suspended are
    shown to the code at the resume.
    """

    def __init__(self, moved: Iterable[Entry] = ()) -> None:
        """`moved`: the actions of a copied history that Dapr moved to its end; the copied code scheduled them earlier.
        Waits among them are open from the start."""
        self.answers = Answers()
        self._open = [(name.casefold(), wait) for wait in moved if (name := _event_awaited(wait)) is not None]
        self._triggers: list[Entry] = []  # of the current turn, and those held back while suspended
        self._actions: list[Entry] = []  # of the current turn
        self._suspended = False

    def add(self, entry: Entry) -> None:
        """Processes the next entry of the history."""
        if entry.kind == "workflowStarted":
            self.end_turn()
        elif entry.kind == "executionSuspended":
            self._suspended = True
        elif entry.kind == "executionResumed":
            self._suspended = False
        elif entry.kind in ACTIONS:
            self._actions.append(entry)
        else:
            self._add_trigger(entry)

    def end_turn(self) -> None:
        """Pairs the turn's waits with the turn's events. A wait without an event stays open."""
        for wait in self._actions:
            name = _event_awaited(wait)
            if name is None:
                continue
            event = next((event for event in self._unclaimed_events(name) if self._has_answered(event, wait)), None)
            if event is not None:
                self.answers.add(wait, event)
            else:
                self._open.append((name.casefold(), wait))
        self._actions.clear()
        if not self._suspended:
            self._triggers.clear()

    def _add_trigger(self, entry: Entry) -> None:
        self._triggers.append(entry)
        if entry.kind == "timerFired":
            self._open = [(name, wait) for name, wait in self._open if wait.id != entry.body.timerId]
        elif entry.kind == "eventRaised":
            name = entry.body.name.casefold()
            oldest = next((pair for pair in self._open if pair[0] == name), None)
            if oldest is not None:
                self._open.remove(oldest)
                self.answers.add(oldest[1], entry)

    def _unclaimed_events(self, name: str) -> Iterator[Entry]:
        return (
            entry
            for entry in self._triggers
            if entry.kind == "eventRaised"
            and entry.body.name.casefold() == name.casefold()
            and entry.index not in self.answers.of_event
        )

    def _has_answered(self, event: Entry, wait: Entry) -> bool:
        """Whether an event answered a wait that stands after it in the same turn.

        It can only if another trigger made the code advance before the event was shown to it. If a trigger after the
        event made it advance too, the SDK may instead have kept the event, and a later wait may have taken it without a
        trace. In that case the event answered this wait if the code scheduled something else after it. This is certain
        for sequential code, and a guess for code that waits and works concurrently.
        """
        advances = [entry.index for entry in self._triggers if self._advances_code(entry)]
        if not any(index < event.index for index in advances):
            return False
        return not any(index > event.index for index in advances) or self._actions[-1].id > wait.id

    def _advances_code(self, entry: Entry) -> bool:
        return entry.kind != "eventRaised" or entry.index in self.answers.of_event
