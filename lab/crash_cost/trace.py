"""Where workers are killed, by a seed, and which requests each kill makes an arm repeat.

A moment is a share of a task's wall time; all are equally likely. The timeline of a task lists its requests in order,
each first on its way and then worked on. A model works twenty times as long as an internal system, so most crashes hit
tasks that wait for a model, as in reality.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

MODEL = "model"
# Seconds of a request: the previous step is recorded and the request travels, then model or system work on it.
ON_THE_WAY_SECONDS = 0.02
MODEL_SECONDS = 2.0
SYSTEM_SECONDS = 0.1


@dataclass(frozen=True)
class Request:
    """One request of a task. `digest` identifies a model request on the bill; it is empty for other requests."""

    target: str
    number: int  # among the task's requests to this target, from 1
    digest: str = ""

    @property
    def paid(self) -> bool:
        """Whether it goes to a model."""
        return self.target == MODEL

    @property
    def seconds(self) -> float:
        """Its assumed duration."""
        return ON_THE_WAY_SECONDS + (MODEL_SECONDS if self.paid else SYSTEM_SECONDS)


Timeline = tuple[Request, ...]


class Kind(StrEnum):
    """The activity that a kill interrupts."""

    MODEL_CALL = "while the model works"
    BETWEEN = "between two requests"  # the last answer is recorded, the next request has not arrived
    SYSTEM_CALL = "while an internal system works"


@dataclass(frozen=True)
class Point:
    """A kill, at the request at `position` of the job's timeline: before or after the target has worked on it. `moment`
    is the share of the job's time that is over (0..1)."""

    job: str
    moment: float
    position: int
    before_work: bool

    def kind(self, timeline: Timeline) -> Kind:
        """The kind of activity that the kill interrupts."""
        if self.before_work:
            return Kind.BETWEEN
        return Kind.MODEL_CALL if timeline[self.position].paid else Kind.SYSTEM_CALL


def trace(seed: str, rate: float, timelines: Mapping[str, Timeline]) -> tuple[Point, ...]:
    """Kills the share `rate` (0..1) of the tasks once each, at least one task.

    With n kills, each of n equal parts of a task's time has one kill, at a random moment of it and of a random task, so
    that a few kills also cover all moments.
    """
    chance = random.Random(f"{seed} {rate}")
    jobs = sorted(timelines)
    chosen = chance.sample(jobs, max(1, min(len(jobs), round(rate * len(jobs)))))
    moments = [(part + chance.random()) / len(chosen) for part in range(len(chosen))]
    return tuple(at(job, moment, timelines[job]) for job, moment in zip(chosen, moments, strict=True))


def at(job: str, moment: float, timeline: Timeline) -> Point:
    """The point of a task at which the share `moment` (0..1) of its time is over."""
    left = moment * seconds(timeline)
    for position, request in enumerate(timeline):
        if left < request.seconds:
            return Point(job, moment, position, before_work=left < ON_THE_WAY_SECONDS)
        left -= request.seconds
    return Point(job, moment, len(timeline) - 1, before_work=False)


def after_all_model_calls(job: str, timeline: Timeline) -> Point:
    """The point at the last request of a task: all model calls are paid and recorded, but the task is not finished."""
    return Point(job, 1.0, len(timeline) - 1, before_work=False)


def seconds(timeline: Iterable[Request]) -> float:
    """The assumed duration of a task."""
    return sum(request.seconds for request in timeline)


class Arm(StrEnum):
    """How a task continues after a crash."""

    RESTART = "restart"  # at step one
    RESUME = "resume"  # at the interrupted step

    @property
    def words(self) -> str:
        """The arm's name for readers."""
        return {Arm.RESTART: "restart from zero", Arm.RESUME: "durable resume"}[self]


Digests = Counter[str]


def expected_repeats(arm: Arm, points: Iterable[Point], timelines: Mapping[str, Timeline]) -> Digests:
    """The model requests that the kills make an arm pay again, by digest.

    A restart repeats every model call that the task had started. A resume repeats only the call in flight, whose answer
    was lost with the worker, and the provider bills it nevertheless.
    """
    repeats: Digests = Counter()
    for point in points:
        timeline = timelines[point.job]
        repeats.update(_billed_before(point, timeline) if arm is Arm.RESTART else _lost_call(point, timeline))
    return repeats


def all_requests(jobs: Iterable[str], timelines: Mapping[str, Timeline]) -> Digests:
    """All model requests of these tasks by digest, which a restart repeats after a crash in the last moment."""
    return Counter(request.digest for job in jobs for request in timelines[job] if request.paid)


def expected_ratio(model_calls: int) -> float:
    """What a resume repeats, divided by what a restart does, for a task of n equal model calls, killed during one of
    them, all equally likely: 1 call against (n + 1) / 2."""
    return 2 / (model_calls + 1)


def _billed_before(point: Point, timeline: Timeline) -> list[str]:
    """The digests of the model calls that were billed before the kill."""
    end = point.position + (not point.before_work)
    return [request.digest for request in timeline[:end] if request.paid]


def _lost_call(point: Point, timeline: Timeline) -> list[str]:
    """The digest of the model call that was billed and not answered, if any."""
    request = timeline[point.position]
    return [request.digest] if request.paid and not point.before_work else []
