"""A run's wall time, split: told by hand, and for any mixture of things at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from dapr.ext.workflow._durabletask.internal import protos
from hypothesis import given
from hypothesis import strategies as st

from app.dapr.history.model import (
    Attempt,
    AttemptOutcome,
    ChildRun,
    Replay,
    RetryPause,
    RunStatus,
    Step,
    Suspension,
    Timer,
    Wait,
    WaitOutcome,
    WorkflowRun,
)
from app.dapr.history.parse import parse
from app.dapr.history.times import TimePart, spans, split
from tests.dapr.history.told import T0, Told, at

ZERO = timedelta(0)


def pieces(run: WorkflowRun, until: float = 1000) -> list[tuple[str, float, float]]:
    """The run's spans, in seconds."""
    return [
        (span.part + (f" {span.label}" if span.label else ""), seconds(span.started_at), seconds(span.ended_at))
        for span in spans(run, at(until))
    ]


def seconds(moment: datetime) -> float:
    """Seconds after the beginning of the told time."""
    return (moment - T0).total_seconds()


def test_a_run_with_everything_in_it() -> None:
    events = Told().turn(1).started(0).scheduled(1.5, 1)
    events.turn(4).failed(3, 1).pauses(4, 2, due=9).turn(9.5).fired(9, 2).scheduled(10, 3)
    events.turn(12).completed(11, 3).waits(12.5, 4, "Decision").turn(21).raised(20, "decision").child(21, 5)
    events.turn(31).child_completed(30, 5).timer(31, 6, 40, createTimer=protos.TimerOriginCreateTimer())
    events.turn(41).fired(40, 6).turn(43).suspended(42).turn(50).resumed(49).ended(50)
    assert pieces(parse("i", events.events)) == [
        ("idle", 0, 1),
        ("active", 1, 3),
        ("idle", 3, 4),
        ("back_off", 4, 9),
        ("idle", 9, 9.5),
        ("active", 9.5, 11),
        ("idle", 11, 12),
        ("active", 12, 12.5),
        ("waiting decision", 12.5, 20),
        ("idle", 20, 21),
        ("children", 21, 30),
        ("idle", 30, 31),
        ("timer", 31, 40),
        ("idle", 40, 42),
        ("suspended", 42, 49),
        ("idle", 49, 50),
    ]


def test_work_has_precedence_over_waiting_and_a_suspension_over_waits() -> None:
    events = Told().turn(0).started(0).waits(0, 1, "resume").waits(0, 2, "decision").scheduled(0, 3)
    events.turn(10).completed(10, 3).turn(20).raised(20, "decision").turn(30).suspended(30)
    assert pieces(parse("i", events.events), until=40) == [
        ("active", 0, 10),
        ("waiting decision", 10, 20),
        ("waiting resume", 20, 30),
        ("suspended", 30, 40),
    ]
    time = split(parse("i", events.events), at(40))
    assert time.waiting_for == {"decision": timedelta(seconds=10), "resume": timedelta(seconds=10)}
    assert time.parts[TimePart.WAITING] == timedelta(seconds=20)
    assert time.active == timedelta(seconds=10)


def test_what_a_terminated_run_left_open_ends_with_it() -> None:
    events = Told().turn(0).started(0).scheduled(0, 1).ended(5, status=5)
    assert pieces(parse("i", events.events), until=99) == [("active", 0, 5)]


def test_inherited_work_and_detached_children_take_no_time_of_this_run() -> None:
    events = Told().turn(0).started(0).scheduled(0, 1, key="k1").turn(9).completed(9, 1).scheduled(50, 2, key="k2")
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    body = protos.DetachedWorkflowInstanceCreatedEvent(instanceId="other")
    events.turn(60).completed(60, 2).add(60, 3, detachedWorkflowInstanceCreated=body)
    assert pieces(parse("i", events.events), until=70) == [("active", 50, 60), ("idle", 60, 70)]


def test_a_pending_run_has_no_time() -> None:
    assert split(parse("i", ()), at(0)).total == ZERO


def test_a_run_that_starts_later_has_no_time_yet() -> None:
    assert pieces(parse("i", Told().turn(10).started(10).events), until=5) == []


MOMENTS = st.integers(-50, 150).map(at)
ENDS = st.none() | MOMENTS


def intervals(build: Any) -> Any:
    """Up to four intervals; some are open, some end before they start."""
    return st.lists(st.builds(build, MOMENTS, ENDS), max_size=4).map(tuple)


def attempt(started: datetime, ended: datetime | None) -> Attempt:
    """An attempt with this start and end."""
    return Attempt(1, 1, started, ended, AttemptOutcome.OPEN)


def runs() -> Any:
    """Runs with intervals of every kind at any time."""
    return st.builds(
        WorkflowRun,
        instance_id=st.just("i"),
        name=st.just("w"),
        status=st.just(RunStatus.RUNNING),
        started_at=MOMENTS,
        ended_at=ENDS,
        steps=intervals(lambda started, ended: Step("k", "a", (attempt(started, ended),))),
        children=intervals(lambda started, ended: ChildRun("c", "c", (attempt(started, ended),))),
        pauses=intervals(lambda started, ended: RetryPause("k", 1, started, started, ended)),
        timers=intervals(lambda started, ended: Timer(1, started, started, ended)),
        waits=intervals(lambda started, ended: Wait("E", 1, started, None, ended, WaitOutcome.OPEN)),
        suspensions=intervals(Suspension),
        replays=intervals(lambda started, ended: Replay(started, ended or started)),
    )


@given(runs(), MOMENTS)
def test_the_parts_are_the_whole_without_gap_or_overlap(run: WorkflowRun, until: datetime) -> None:
    pieces_found = spans(run, until)
    assert run.started_at is not None
    end = max(run.started_at, run.ended_at or until)
    edges = [run.started_at, *(span.ended_at for span in pieces_found)]
    assert [span.started_at for span in pieces_found] == edges[:-1]
    assert edges[-1] == end
    assert all(span.length > ZERO for span in pieces_found)
    parts = split(run, until)
    assert parts.total == end - run.started_at
    assert sum(parts.waiting_for.values(), ZERO) == parts.parts[TimePart.WAITING]
    assert min(parts.parts.values()) >= ZERO


@given(runs(), MOMENTS)
def test_every_moment_has_the_part_of_its_first_claim(run: WorkflowRun, until: datetime) -> None:
    for span in spans(run, until):
        middle = span.started_at + span.length / 2
        assert span.part is first_claim(run, middle), middle


def first_claim(run: WorkflowRun, moment: datetime) -> TimePart:
    """The part of a run at a moment, computed by checking each part in order of precedence."""

    def during(started: datetime, ended: datetime | None) -> bool:
        return started <= moment and (ended is None or moment < ended)

    steps = [item for step in run.steps for item in step.attempts]
    children = [item for child in run.children for item in child.attempts]
    claims = {
        TimePart.ACTIVE: [
            *(during(item.scheduled_at, item.ended_at) for item in steps),
            *(during(item.started_at, item.ended_at) for item in run.replays),
        ],
        TimePart.SUSPENDED: [during(item.started_at, item.ended_at) for item in run.suspensions],
        TimePart.CHILDREN: [during(item.scheduled_at, item.ended_at) for item in children],
        TimePart.WAITING: [during(item.started_at, item.ended_at) for item in run.waits],
        TimePart.BACK_OFF: [during(item.started_at, item.ended_at) for item in run.pauses],
        TimePart.TIMER: [during(item.started_at, item.ended_at) for item in run.timers],
    }
    return next((part for part, claimed in claims.items() if any(claimed)), TimePart.IDLE)
