"""Splits a run's wall time, from start to end, into parts without gap or overlap.

If several parts apply at once, the time belongs to the one that `TimePart` names first: a step that runs while the task
waits for a person is work. Dapr shows a step whose worker died as one long attempt; `idle` has the times in which no
worker worked on it (see `executions.py`).
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
# The times in which no worker worked on an attempt, by its event id. An end of None: the time has not ended.
Idle = Mapping[int, Sequence[tuple[datetime, datetime | None]]]
# A step's execution id ("" for the workflow's own code), and whether the work was wasted.
Share = tuple[str, bool]
_Label = TypeVar("_Label", bound=Hashable)
_MICROSECOND = timedelta(microseconds=1)


class TimePart(StrEnum):
    """What a run was doing, in order of precedence."""

    ACTIVE = "active"  # a step was scheduled and had not ended, or the workflow's code ran
    RESTART = "restart"  # a step was lost with its worker or sidecar, and had not been started again
    SUSPENDED = "suspended"
    CHILDREN = "children"  # a child workflow ran
    WAITING = "waiting"  # for an external event, mostly a person's
    BACK_OFF = "back_off"  # before a retry
    TIMER = "timer"  # of the workflow's own code
    IDLE = "idle"  # none of these: in transit between worker and Dapr, stalled, or not shown by the history


_RANK = {part: rank for rank, part in enumerate(TimePart)}
_NOTHING: Key = (TimePart.IDLE, "")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a run that belongs to one part. `label`: of `WAITING`, the name of the awaited event; else empty."""

    part: TimePart
    started_at: datetime
    ended_at: datetime
    label: str = ""

    @property
    def length(self) -> timedelta:
        """The duration of the span."""
        return self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class Split:
    """The time of each part of a run. `waiting_for` splits the time of `WAITING` by the awaited event."""

    parts: dict[TimePart, timedelta]
    waiting_for: dict[str, timedelta]

    @property
    def total(self) -> timedelta:
        """The run's wall time."""
        return sum(self.parts.values(), timedelta(0))

    @property
    def active(self) -> timedelta:
        """The time in which the run was worked on."""
        return self.parts[TimePart.ACTIVE]


def split(run: WorkflowRun, until: datetime, idle: Idle | None = None) -> Split:
    """The time of each part of a run, up to its end, or up to `until` (now) if it has not ended."""
    parts = dict.fromkeys(TimePart, timedelta(0))
    waiting_for: dict[str, timedelta] = {}
    for span in spans(run, until, idle):
        parts[span.part] += span.length
        if span.part is TimePart.WAITING:
            waiting_for[span.label] = waiting_for.get(span.label, timedelta(0)) + span.length
    return Split(parts, waiting_for)


def spans(run: WorkflowRun, until: datetime, idle: Idle | None = None) -> tuple[Span, ...]:
    """The run's spans in order, each starting where the previous one ends; empty if the run has not started."""
    if run.started_at is None:
        return ()
    end = run.ended_at or until
    clipped = _clip(_intervals(run, idle or {}), run.started_at, end)
    return tuple(_merge_neighbours(_spans(clipped, run.started_at, end)))


def shares(run: WorkflowRun, until: datetime, idle: Idle | None = None) -> dict[Share, timedelta]:
    """The active time by step and by whether it was wasted (a failed attempt, or work that was lost). Steps that were
    active at once share that time evenly, so the shares sum exactly to `split(run, until, idle).active`."""
    if run.started_at is None:
        return {}
    own_code = [(("", False), replay.started_at, replay.ended_at) for replay in run.replays]
    steps = [
        ((step.execution_id, wasted), started_at, ended_at)
        for step in run.steps
        for attempt in step.attempts
        for started_at, ended_at, wasted in _work_times(attempt, (idle or {}).get(attempt.event_id, ()))
    ]
    end = run.ended_at or until
    by_share: Counter[Share] = Counter()
    for first, last, current in _sweep(_clip([*own_code, *steps], run.started_at, end), run.started_at, end):
        # The workflow's own code counts only while no step is active.
        keys = sorted(key for key in current if key[0]) or sorted(current)
        microseconds = (last - first) // _MICROSECOND
        for number, key in enumerate(keys):
            by_share[key] += microseconds // len(keys) + (number < microseconds % len(keys))
    return {key: timedelta(microseconds=share) for key, share in by_share.items()}


def _work_times(
    attempt: Attempt, idle: Sequence[tuple[datetime, datetime | None]]
) -> Iterator[tuple[datetime, datetime | None, bool]]:
    """The times in which a worker worked on an attempt: start, end (None if open), and whether the work was wasted. All
    times but the last are wasted; the last one is if the attempt failed."""
    started_at: datetime | None = attempt.scheduled_at
    for lost_at, restarted_at in idle:
        if started_at is not None:
            yield started_at, lost_at, True
        started_at = restarted_at
    if started_at is not None:
        yield started_at, attempt.ended_at, attempt.outcome is AttemptOutcome.FAILED


def _intervals(run: WorkflowRun, idle: Idle) -> Iterator[tuple[Key, datetime, datetime | None]]:
    """The start and end of everything that took time; an end of None if it has not ended. Inherited attempts end before
    the run starts, so clipping removes them."""
    active, children = (TimePart.ACTIVE, ""), (TimePart.CHILDREN, "")
    for replay in run.replays:
        yield active, replay.started_at, replay.ended_at
    for attempt in (attempt for step in run.steps for attempt in step.attempts):
        gaps = idle.get(attempt.event_id, ())
        yield from ((active, started_at, ended_at) for started_at, ended_at, _ in _work_times(attempt, gaps))
        yield from (((TimePart.RESTART, ""), lost_at, again or attempt.ended_at) for lost_at, again in gaps)
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


def _clip(
    intervals: Iterable[tuple[_Label, datetime, datetime | None]], start: datetime, end: datetime
) -> Iterator[tuple[_Label, datetime, datetime]]:
    for key, started_at, ended_at in intervals:
        first, last = max(started_at, start), min(ended_at or end, end)
        if first < last:
            yield key, first, last


def _sweep(
    intervals: Iterable[tuple[_Label, datetime, datetime]], start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime, Mapping[_Label, int]]]:
    """Cuts the time from `start` to `end` at each start and end of an interval. Yields the start and end of each piece,
    and how many intervals of each label cover it."""
    changes: list[tuple[datetime, _Label | None, int]] = [(start, None, 0), (end, None, 0)]
    for key, first, last in intervals:
        changes += [(first, key, 1), (last, key, -1)]
    changes.sort(key=lambda change: change[0])
    current: dict[_Label, int] = {}
    at = start
    for moment, label, by in changes:
        if moment > at:
            yield at, moment, current
            at = moment
        if label is not None:
            current[label] = current.get(label, 0) + by
            if not current[label]:
                del current[label]


def _spans(intervals: Iterable[tuple[Key, datetime, datetime]], start: datetime, end: datetime) -> Iterator[Span]:
    for first, last, current in _sweep(intervals, start, end):
        part, label = min(current, key=lambda key: (_RANK[key[0]], key[1]), default=_NOTHING)
        yield Span(part, first, last, label)


def _merge_neighbours(pieces: Iterable[Span]) -> Iterator[Span]:
    """Joins neighbouring spans of the same part and label."""
    previous: Span | None = None
    for span in pieces:
        if previous and (previous.part, previous.label) == (span.part, span.label):
            previous = Span(previous.part, previous.started_at, span.ended_at, previous.label)
            continue
        if previous:
            yield previous
        previous = span
    if previous:
        yield previous
