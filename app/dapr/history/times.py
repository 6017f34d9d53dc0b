"""Where a run's wall time went: from its start to its end, split into parts without gap or overlap. Pure.

When several things were so at once, the first of `TimePart` that was so has the time: a step that works while a person
is waited for is work. A step whose worker died shows as one long attempt, since Dapr writes nothing until it has ended:
`idle` says in which times nobody worked at it (see `executions.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from app.dapr.history.model import Attempt, AttemptOutcome, WorkflowRun

Key = tuple["TimePart", str]
# By the schedule's event id: when nobody worked at an attempt; None while it goes on.
Idle = Mapping[int, Sequence[tuple[datetime, datetime | None]]]
# A step's execution id ("" for the workflow's own code), and whether the work was in vain.
Share = tuple[str, bool]
_Label = TypeVar("_Label", bound=Hashable)
_MICROSECOND = timedelta(microseconds=1)


class TimePart(StrEnum):
    """What a run was doing, in order of precedence."""

    ACTIVE = "active"  # a step was scheduled and had not ended, or the workflow's code was run
    RESTART = "restart"  # a step was lost with its worker or sidecar, and nobody had taken it up again
    SUSPENDED = "suspended"
    CHILDREN = "children"  # a child workflow was under way
    WAITING = "waiting"  # for an external event: a person, mostly
    BACK_OFF = "back_off"  # before a retry
    TIMER = "timer"  # of the workflow's own code
    IDLE = "idle"  # none of these: on the way between worker and Dapr, stalled, or nothing that a history shows


_RANK = {part: rank for rank, part in enumerate(TimePart)}
_NOTHING: Key = (TimePart.IDLE, "")


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of a run. `label` is the name of the event that was waited for, else empty."""

    part: TimePart
    started_at: datetime
    ended_at: datetime
    label: str = ""

    @property
    def length(self) -> timedelta:
        """How long it was."""
        return self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class Split:
    """The time of each part; `waiting_for` splits the waiting by event."""

    parts: dict[TimePart, timedelta]
    waiting_for: dict[str, timedelta]

    @property
    def total(self) -> timedelta:
        """The run's wall time."""
        return sum(self.parts.values(), timedelta(0))

    @property
    def active(self) -> timedelta:
        """The time that somebody worked."""
        return self.parts[TimePart.ACTIVE]


def split(run: WorkflowRun, until: datetime, idle: Idle | None = None) -> Split:
    """How long a run did what, until its end, or until now (`until`) if it has none."""
    parts = dict.fromkeys(TimePart, timedelta(0))
    waiting_for: dict[str, timedelta] = {}
    for span in spans(run, until, idle):
        parts[span.part] += span.length
        if span.part is TimePart.WAITING:
            waiting_for[span.label] = waiting_for.get(span.label, timedelta(0)) + span.length
    return Split(parts, waiting_for)


def spans(run: WorkflowRun, until: datetime, idle: Idle | None = None) -> tuple[Span, ...]:
    """The run's pieces in order: each begins where the one before ends. None for a run that has not started."""
    if run.started_at is None:
        return ()
    end = run.ended_at or until
    clipped = _clipped(_intervals(run, idle or {}), run.started_at, end)
    return tuple(_merged(_spans(clipped, run.started_at, end)))


def shares(run: WorkflowRun, until: datetime, idle: Idle | None = None) -> dict[Share, timedelta]:
    """The active time by step, and whether it was in vain: an attempt that failed, or work that was lost. Steps that
    were active at once share that time evenly, so the shares sum to `split(run, until).active`, to the microsecond."""
    if run.started_at is None:
        return {}
    own = [(("", False), replay.started_at, replay.ended_at) for replay in run.replays]
    steps = [
        ((step.execution_id, wasted), begun, ended)
        for step in run.steps
        for attempt in step.attempts
        for begun, ended, wasted in _worked(attempt, (idle or {}).get(attempt.event_id, ()))
    ]
    end = run.ended_at or until
    found: Counter[Share] = Counter()
    for first, last, now in _swept(_clipped([*own, *steps], run.started_at, end), run.started_at, end):
        working = sorted(now, key=lambda key: (not key[0], key))  # the workflow's code counts while no step is active
        _share(found, [key for key in working if key[0]] or working, (last - first) // _MICROSECOND)
    return {key: timedelta(microseconds=share) for key, share in found.items()}


def _worked(
    attempt: Attempt, idle: Sequence[tuple[datetime, datetime | None]]
) -> Iterator[tuple[datetime, datetime | None, bool]]:
    """The times in which somebody worked at an attempt; all but the last one were lost, that one if it failed."""
    begun: datetime | None = attempt.scheduled_at
    for lost, again in idle:
        if begun is not None:
            yield begun, lost, True
        begun = again
    if begun is not None:
        yield begun, attempt.ended_at, attempt.outcome is AttemptOutcome.FAILED


def _share(found: Counter[Share], keys: list[Share], microseconds: int) -> None:
    for number, key in enumerate(keys):
        found[key] += microseconds // len(keys) + (number < microseconds % len(keys))


def _intervals(run: WorkflowRun, idle: Idle) -> Iterator[tuple[Key, datetime, datetime | None]]:
    """Everything that took time; None where it did not end. What a rerun inherits was before its start."""
    active, children = (TimePart.ACTIVE, ""), (TimePart.CHILDREN, "")
    for replay in run.replays:
        yield active, replay.started_at, replay.ended_at
    for attempt in (attempt for step in run.steps for attempt in step.attempts):
        gaps = idle.get(attempt.event_id, ())
        yield from ((active, begun, ended) for begun, ended, _ in _worked(attempt, gaps))
        yield from (((TimePart.RESTART, ""), lost, again or attempt.ended_at) for lost, again in gaps)
    for child in run.children:
        if not child.detached:
            yield from (
                (children, child_attempt.scheduled_at, child_attempt.ended_at) for child_attempt in child.attempts
            )
    for suspension in run.suspensions:
        yield (TimePart.SUSPENDED, ""), suspension.started_at, suspension.ended_at
    for wait in run.waits:
        yield (TimePart.WAITING, wait.name.casefold()), wait.started_at, wait.ended_at
    for pause in run.pauses:
        yield (TimePart.BACK_OFF, ""), pause.started_at, pause.ended_at
    for timer in run.timers:
        yield (TimePart.TIMER, ""), timer.started_at, timer.ended_at


def _clipped(
    intervals: Iterable[tuple[_Label, datetime, datetime | None]], start: datetime, end: datetime
) -> Iterator[tuple[_Label, datetime, datetime]]:
    for key, begun, ended in intervals:
        first, last = max(begun, start), min(ended or end, end)
        if first < last:
            yield key, first, last


def _swept(
    intervals: Iterable[tuple[_Label, datetime, datetime]], start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime, Mapping[_Label, int]]]:
    """Goes from one begin or end to the next and tells what was so in between."""
    changes: list[tuple[datetime, _Label | None, int]] = [(start, None, 0), (end, None, 0)]
    for key, first, last in intervals:
        changes += [(first, key, 1), (last, key, -1)]
    changes.sort(key=lambda change: change[0])
    now: dict[_Label, int] = {}  # only what is so, with how often
    at = start
    for moment, changed, by in changes:
        if moment > at:
            yield at, moment, now
            at = moment
        if changed is not None:
            now[changed] = now.get(changed, 0) + by
            if not now[changed]:
                del now[changed]


def _spans(intervals: Iterable[tuple[Key, datetime, datetime]], start: datetime, end: datetime) -> Iterator[Span]:
    for first, last, now in _swept(intervals, start, end):
        part, label = min(now, key=_precedence, default=_NOTHING)
        yield Span(part, first, last, label)


def _precedence(key: Key) -> tuple[int, str]:
    return _RANK[key[0]], key[1]


def _merged(pieces: Iterable[Span]) -> Iterator[Span]:
    """Joins neighbours of one kind."""
    last: Span | None = None
    for piece in pieces:
        if last and (last.part, last.label) == (piece.part, piece.label):
            last = Span(last.part, last.started_at, piece.ended_at, last.label)
            continue
        if last:
            yield last
        last = piece
    if last:
        yield last
