"""What a kill must make either arm repeat: as the requests that will stand on the bill once more. Pure.

Begun again at step one, a task repeats every model call that it had begun. Resumed, it repeats the one in flight: its
answer was lost with the worker, and the provider bills it all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

from lab.crash_cost.trace import Point, Timeline


class Arm(StrEnum):
    """How a task goes on after a crash."""

    RESTART = "restart"  # at step one
    RESUME = "resume"  # at the step that it was in

    @property
    def words(self) -> str:
        """For people."""
        return {Arm.RESTART: "restart from zero", Arm.RESUME: "durable resume"}[self]


Digests = Counter[str]


def repeated(arm: Arm, points: Iterable[Point], timelines: Mapping[str, Timeline]) -> Digests:
    """The model requests that are paid once more, and how often."""
    found: Digests = Counter()
    for point in points:
        found.update(_begun(point, timelines[point.job]) if arm is Arm.RESTART else _lost(point, timelines[point.job]))
    return found


def everything(jobs: Iterable[str], timelines: Mapping[str, Timeline]) -> Digests:
    """All model requests of these tasks: what a crash in the last moment makes a restart repeat."""
    return Counter(request.digest for job in jobs for request in timelines[job] if request.paid)


def expected_ratio(model_calls: int) -> float:
    """What a resume repeats for each unit that a restart does, for a task of so many equal model calls that is killed
    while one of them is in flight, any as likely as any other: 1 call against (n + 1) / 2."""
    return 2 / (model_calls + 1)


def _begun(point: Point, timeline: Timeline) -> list[str]:
    """Billed before the kill."""
    end = point.position + (not point.before_work)
    return [request.digest for request in timeline[:end] if request.paid]


def _lost(point: Point, timeline: Timeline) -> list[str]:
    """Billed, and not answered."""
    request = timeline[point.position]
    return [request.digest] if request.paid and not point.before_work else []
