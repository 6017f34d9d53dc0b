"""What lies between two looks at the sidecar: how many calls it asked again, or a gap of which nobody knows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.worker.sidecar_metrics import Exposition

# Linux tells a process's start relative to a boot time that moves by up to a second.
_SAME_START_SECONDS = 1.5
# What one look finds is written at the next one, two seconds later: a worker that is killed has not written so much.
_UNWRITTEN = timedelta(seconds=6)


@dataclass(frozen=True)
class Window:
    """Between two looks at a component: how many of its calls daprd began to ask again."""

    component: str
    from_at: datetime
    to_at: datetime
    retried: int


@dataclass(frozen=True)
class Gap:
    """A time of which the counters are lost. `predecessors`: it is of workers before this one, and begins later if
    their own rows reach into it."""

    from_at: datetime
    to_at: datetime
    predecessors: bool = False


@dataclass(frozen=True)
class End:
    """All of a component's retries are counted until here."""

    component: str
    to_at: datetime


Found = Window | Gap | End


@dataclass(frozen=True)
class Reading:
    """One look at the metrics."""

    at: datetime
    page: Exposition


def first(reading: Reading) -> list[Found]:
    """What the first look says: a sidecar that has counted already did so for workers before this one; and what the
    sidecar before it counted is lost, as far as a worker that was killed had not written it yet."""
    start = _start(reading)
    counted = any(reading.page.retried.values())
    return [Gap(start - _UNWRITTEN, reading.at if counted else start, predecessors=True)]


def between(earlier: Reading, later: Reading) -> list[Found]:
    """What happened between two looks; nothing for a component without a retry. A restarted daprd counts from zero,
    and what the one before it counted since the earlier look is lost."""
    if not _restarted(earlier.page, later.page):
        return [*_windows(earlier, later, earlier.page)]
    return [Gap(earlier.at, later.at), *_windows(earlier, later, Exposition(None, {}))]


def lost(earlier: Reading | None, began: datetime, at: datetime) -> list[Found]:
    """What a look says at a sidecar that shows no metrics until it is started again: nobody will know what it asked
    again since the earlier look; without one, since the worker `began`, and what workers before it had not written."""
    if earlier is not None:
        return [Gap(earlier.at, at)]
    return [Gap(began - _UNWRITTEN, at, predecessors=True), Gap(began, at)]


def _windows(earlier: Reading, later: Reading, before: Exposition) -> list[Window]:
    counted = {name: count - before.retried.get(name, 0) for name, count in later.page.retried.items()}
    return [Window(name, earlier.at, later.at, count) for name, count in sorted(counted.items()) if count]


def _restarted(earlier: Exposition, later: Exposition) -> bool:
    if any(later.retried.get(name, 0) < count for name, count in earlier.retried.items()):
        return True
    if earlier.started is None or later.started is None:
        return False
    return abs(later.started - earlier.started) > _SAME_START_SECONDS


def _start(reading: Reading) -> datetime:
    started = reading.page.started
    return reading.at if started is None else datetime.fromtimestamp(started, UTC)
