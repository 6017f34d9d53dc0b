"""Where workers are killed: a seed alone chooses the tasks and the moments of their lives. Pure.

A moment is a share of the task's wall time, any as likely as any other. What a task does in that time is its timeline:
one request after another, each on its way first and then worked on. A model works twenty times as long as an internal
system: crashes hit mostly those who wait for a model, as in life.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

MODEL = "model"
# What one request takes of a task's time: the step before it is recorded and it travels; then somebody works on it.
ON_THE_WAY_SECONDS = 0.02
MODEL_SECONDS = 2.0
SYSTEM_SECONDS = 0.1

Key = tuple[str, int]  # whom a task asks, and for the how many-th time


@dataclass(frozen=True)
class Request:
    """One request of a task. `digest` names a model request on the bill."""

    target: str
    number: int  # the how many-th of the task to this target, from 1
    digest: str = ""

    @property
    def paid(self) -> bool:
        """Whether it is a model's."""
        return self.target == MODEL

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return ON_THE_WAY_SECONDS + (MODEL_SECONDS if self.paid else SYSTEM_SECONDS)


Timeline = tuple[Request, ...]


class Kind(StrEnum):
    """What a kill interrupts."""

    MODEL_CALL = "while the model works"
    BETWEEN = "between two requests"  # the answer before is recorded, the next request has not arrived
    SYSTEM_CALL = "while an internal system works"


@dataclass(frozen=True)
class Point:
    """A kill: when the task's request at `position` of its timeline has got that far. `moment` is 0 to 1."""

    job: str
    moment: float
    position: int
    before_work: bool

    def kind(self, timeline: Timeline) -> Kind:
        """What is interrupted."""
        if self.before_work:
            return Kind.BETWEEN
        return Kind.MODEL_CALL if timeline[self.position].paid else Kind.SYSTEM_CALL


def trace(seed: str, rate: float, timelines: Mapping[str, Timeline]) -> tuple[Point, ...]:
    """One kill for a share of the tasks, at least for one. The moments are spread: one in each equal part of a task's
    life, where in it and whose is chance; so few kills, too, stand for all moments."""
    chance = random.Random(f"{seed} {rate}")
    jobs = sorted(timelines)
    chosen = chance.sample(jobs, max(1, min(len(jobs), round(rate * len(jobs)))))
    moments = [(part + chance.random()) / len(chosen) for part in range(len(chosen))]
    return tuple(at(job, moment, timelines[job]) for job, moment in zip(chosen, moments, strict=True))


def at(job: str, moment: float, timeline: Timeline) -> Point:
    """The point of a task's life at which so much of its time is over."""
    left = moment * seconds(timeline)
    for position, request in enumerate(timeline):
        if left < request.seconds:
            return Point(job, moment, position, before_work=left < ON_THE_WAY_SECONDS)
        left -= request.seconds
    return Point(job, moment, len(timeline) - 1, before_work=False)


def after_all_model_calls(job: str, timeline: Timeline) -> Point:
    """The last thing that a task does is under way: everything is paid and recorded, nothing is finished."""
    return Point(job, 1.0, len(timeline) - 1, before_work=False)


def seconds(timeline: Iterable[Request]) -> float:
    """How long a task takes."""
    return sum(request.seconds for request in timeline)


# What a kill must make either arm repeat: as the requests that will stand on the bill once more.
#
# Begun again at step one, a task repeats every model call that it had begun. Resumed, it repeats the one in flight: its
# answer was lost with the worker, and the provider bills it all the same.


class Arm(StrEnum):
    """How a task goes on after a crash."""

    RESTART = "restart"  # at step one
    RESUME = "resume"  # at the step that it was in

    @property
    def words(self) -> str:
        """For people."""
        return {Arm.RESTART: "restart from zero", Arm.RESUME: "durable resume"}[self]


Digests = Counter[str]


def expected_repeats(arm: Arm, points: Iterable[Point], timelines: Mapping[str, Timeline]) -> Digests:
    """The model requests that are paid once more, and how often."""
    found: Digests = Counter()
    for point in points:
        found.update(_begun(point, timelines[point.job]) if arm is Arm.RESTART else _lost(point, timelines[point.job]))
    return found


def all_requests(jobs: Iterable[str], timelines: Mapping[str, Timeline]) -> Digests:
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
