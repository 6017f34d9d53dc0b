"""Waits for external events, the events that were raised, and the timers of the workflow's own code. Pure.

A wait is a timer whose origin is `externalEvent`; one without time limit has a fire time in the year 9999. An event
answers the oldest wait of its name (case does not count). One that nobody waits for is kept by the SDK, and the wait
that finds it there leaves no trace. So when several events of one name come within one turn, a history does not tell
which of them a wait of that turn got; the first is taken.
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
    """What answered what, by the index of the raised event and the event id of the wait."""

    of_wait: dict[int, Entry] = field(default_factory=dict)
    of_event: dict[int, int] = field(default_factory=dict)

    def note(self, wait: Entry, event: Entry) -> None:
        """Remembers one answer."""
        self.of_wait[wait.id] = event
        self.of_event[event.index] = wait.id


def event_name(timer: Entry) -> str | None:
    """The event that this timer guards; None when it guards none."""
    origin = timer.body.WhichOneof("origin")
    if origin == "externalEvent":
        return str(timer.body.externalEvent.name)
    if origin is None and timer.body.HasField("name"):  # as older SDKs said it
        return str(timer.body.name)
    if origin is None and timer.body.fireAt.seconds == _NEVER_SECONDS:
        return ""
    return None


def answers(history: History) -> Answers:
    """Pairs waits with events as the SDK did."""
    again = history.fork[:-1]
    pairing = _Pairing(again)
    for entry in history.entries:
        if entry not in again:
            pairing.take(entry)
    pairing.end_turn()
    return pairing.answers


def waits(history: History, found: Answers, retry_timers: frozenset[int]) -> tuple[Wait, ...]:
    """All waits that left a trace, in the order in which the code asked: a rerun may hold an old one at its end."""
    asked = sorted(history.of("timerCreated"), key=lambda timer: timer.id)
    return tuple(
        _wait(history, timer, name, found.of_wait.get(timer.id))
        for timer in asked
        if (name := event_name(timer)) is not None and timer.id not in retry_timers and not history.inherited(timer)
    )


def raised(history: History, found: Answers) -> tuple[RaisedEvent, ...]:
    """All events that reached the run."""
    return tuple(
        RaisedEvent(
            name=entry.body.name,
            at=entry.at,
            payload=entries.payload(entry.body, "input"),
            wait=found.of_event.get(entry.index),
        )
        for entry in history.of("eventRaised")
    )


def timers(history: History, retry_timers: frozenset[int]) -> tuple[Timer, ...]:
    """The timers that the workflow's code asked for."""
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
    ended = answer or fired
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
        # An answer that was there before the code had waited at all was waited for no time.
        ended_at=max(ended.at, timer.at) if ended else None,
        outcome=outcome,
        answer=entries.payload(answer.body, "input") if answer else None,
    )


def _waited_for(action: Entry) -> str | None:
    return event_name(action) if action.kind == "timerCreated" else None


class _Pairing:
    """Goes through a history as the SDK does when it replays it, as far as the history shows it.

    The waits of one turn stand after the events that arrived for it, although the code may have asked for them before
    it was shown those events. So these are paired at the turn's end. What arrives while the run is suspended is shown
    to the code at the resume.
    """

    def __init__(self, again: Iterable[Entry] = ()) -> None:
        """`again` is what Dapr moved to the end of a copied history, although the copied code had asked for it."""
        self.answers = Answers()
        self._open = [(name.casefold(), wait) for wait in again if (name := _waited_for(wait)) is not None]
        self._heard: list[Entry] = []
        self._asked: list[Entry] = []
        self._suspended = False

    def take(self, entry: Entry) -> None:
        """The next entry."""
        if entry.kind == "workflowStarted":
            self.end_turn()
        elif entry.kind == "executionSuspended":
            self._suspended = True
        elif entry.kind == "executionResumed":
            self._suspended = False
        elif entry.kind in ACTIONS:
            self._asked.append(entry)
        else:
            self._hear(entry)

    def end_turn(self) -> None:
        """Pairs the turn's waits with what the turn heard, once the code was shown it."""
        for wait in self._asked:
            name = _waited_for(wait)
            if name is None:
                continue
            event = next((event for event in self._unclaimed(name) if self._answers(event, wait)), None)
            if event is not None:
                self.answers.note(wait, event)
            else:
                self._open.append((name.casefold(), wait))
        self._asked.clear()
        if not self._suspended:
            self._heard.clear()

    def _hear(self, entry: Entry) -> None:
        self._heard.append(entry)
        if entry.kind == "timerFired":
            self._open = [(name, wait) for name, wait in self._open if wait.id != entry.body.timerId]
        elif entry.kind == "eventRaised":
            name = entry.body.name.casefold()
            found = next((pair for pair in self._open if pair[0] == name), None)
            if found is not None:
                self._open.remove(found)
                self.answers.note(found[1], entry)

    def _unclaimed(self, name: str) -> Iterator[Entry]:
        return (
            entry
            for entry in self._heard
            if entry.kind == "eventRaised"
            and entry.body.name.casefold() == name.casefold()
            and entry.index not in self.answers.of_event
        )

    def _answers(self, event: Entry, wait: Entry) -> bool:
        """Whether an event answered a wait that stands after it in the same turn: only if the code was driven on before
        the event was shown to it. When it was driven on after the event too, the event may as well have been kept and
        found there without a trace; then it answered this wait if the code went on to ask for something else. That is
        certain for code that does one thing after the other, and a guess for code that waits and works side by side."""
        moves = [entry.index for entry in self._heard if self._moves(entry)]
        if not any(move < event.index for move in moves):
            return False
        return not any(move > event.index for move in moves) or self._asked[-1].id > wait.id

    def _moves(self, entry: Entry) -> bool:
        return entry.kind != "eventRaised" or entry.index in self.answers.of_event
