"""What a history says of its steps: completed how often, since when for sure, and scheduled again or not."""

from __future__ import annotations

from app.dapr.history.parse import parse
from lab.chaos.evidence import SAVED_WITHIN, StepSeen, steps_seen
from tests.dapr.history.told import Told, at


def seen(told: Told) -> tuple[StepSeen, ...]:
    """The steps of a told history."""
    return steps_seen(parse("i", told.events), told.events)


def begun() -> Told:
    """A run that asks for one step."""
    return Told().turn(1).started(0).scheduled(1.1, 5, name="classify", key="k")


def test_a_step_that_is_under_way_is_not_completed() -> None:
    assert seen(begun()) == (StepSeen("k", (5,), "classify", 0, None, None, 0),)


def test_a_completed_step_is_saved_before_the_next_turn_begins() -> None:
    told = begun().turn(2.2).completed(2, 5).scheduled(2.3, 6, name="close_case", key="l")
    first, second = seen(told.turn(2.5).completed(2.4, 6).ended(2.6))
    assert (first.completions, first.reported_at, first.saved_by) == (1, at(2), at(2.5))
    assert (second.reported_at, second.saved_by) == (at(2.4), at(2.5) + SAVED_WITHIN), "no turn follows"


def test_a_turn_is_saved_long_before_a_next_one_that_is_far_away() -> None:
    told = begun().turn(2.2).completed(2, 5).scheduled(2.3, 6, key="l").turn(60).completed(59, 6)
    assert seen(told)[0].saved_by == at(2.2) + SAVED_WITHIN


def test_a_result_that_came_when_a_turn_had_begun_is_saved_by_the_next_one() -> None:
    """Both reached the sidecar before it wrote the turn's time, and the turn held the first alone."""
    told = (
        Told().turn(1).started(0).scheduled(1.1, 5, name="accounts", key="k").scheduled(1.1, 6, name="orders", key="l")
    )
    told.turn(2.2).completed(2, 5).turn(20).completed(2.1, 6).turn(22)
    first, second = seen(told)
    assert (first.saved_by, second.saved_by) == (at(2.2) + SAVED_WITHIN, at(20) + SAVED_WITHIN)


def test_a_step_that_failed_first_is_known_by_both_of_its_schedules() -> None:
    told = begun().turn(2).failed(1.9, 5).pauses(2, 6, due=3).turn(3).fired(3, 6)
    told.scheduled(3.1, 7, name="classify", key="k").turn(4).completed(3.9, 7)
    (step,) = seen(told)
    assert (step.event_ids, step.completions, step.scheduled_after) == ((5, 7), 1, 0)


def test_a_completion_that_stands_twice_is_counted_twice() -> None:
    assert seen(begun().turn(2.2).completed(2, 5).completed(2.1, 5))[0].completions == 2


def test_a_schedule_after_the_completion_is_counted() -> None:
    told = begun().turn(2.2).completed(2, 5).scheduled(2.3, 8, name="classify", key="k")
    assert seen(told)[0].scheduled_after == 1
