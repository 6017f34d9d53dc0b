"""Steps observed in a history: completions, when they were certainly saved, and later schedules."""

from __future__ import annotations

from app.dapr.history.parse import parse
from lab.chaos.evidence import SAVED_WITHIN, ObservedStep, observe_steps
from tests.dapr.history.told import Told, at


def steps_of(history: Told) -> tuple[ObservedStep, ...]:
    """The steps of a history."""
    return observe_steps(parse("i", history.events), history.events)


def one_step() -> Told:
    """The history of a run that has scheduled one step."""
    return Told().turn(1).started(0).scheduled(1.1, 5, name="classify", key="k")


def test_a_running_step_is_not_completed() -> None:
    assert steps_of(one_step()) == (ObservedStep("k", (5,), "classify", 0, None, None, 0),)


def test_a_completed_step_is_saved_before_the_next_turn_begins() -> None:
    history = one_step().turn(2.2).completed(2, 5).scheduled(2.3, 6, name="close_case", key="l")
    first, second = steps_of(history.turn(2.5).completed(2.4, 6).ended(2.6))
    assert (first.completions, first.reported_at, first.saved_by) == (1, at(2), at(2.5))
    assert (second.reported_at, second.saved_by) == (at(2.4), at(2.5) + SAVED_WITHIN), "no turn follows"


def test_a_turn_is_saved_long_before_a_much_later_turn() -> None:
    history = one_step().turn(2.2).completed(2, 5).scheduled(2.3, 6, key="l").turn(60).completed(59, 6)
    assert steps_of(history)[0].saved_by == at(2.2) + SAVED_WITHIN


def test_a_result_that_comes_during_a_turn_is_saved_by_the_next_one() -> None:
    """Both results reached the sidecar before it wrote the turn's time; the turn used only the first."""
    history = (
        Told().turn(1).started(0).scheduled(1.1, 5, name="accounts", key="k").scheduled(1.1, 6, name="orders", key="l")
    )
    history.turn(2.2).completed(2, 5).turn(20).completed(2.1, 6).turn(22)
    first, second = steps_of(history)
    assert (first.saved_by, second.saved_by) == (at(2.2) + SAVED_WITHIN, at(20) + SAVED_WITHIN)


def test_a_step_that_failed_first_has_both_schedules() -> None:
    history = one_step().turn(2).failed(1.9, 5).pauses(2, 6, due=3).turn(3).fired(3, 6)
    history.scheduled(3.1, 7, name="classify", key="k").turn(4).completed(3.9, 7)
    (step,) = steps_of(history)
    assert (step.event_ids, step.completions, step.scheduled_after) == ((5, 7), 1, 0)


def test_a_completion_that_occurs_twice_is_counted_twice() -> None:
    assert steps_of(one_step().turn(2.2).completed(2, 5).completed(2.1, 5))[0].completions == 2


def test_a_schedule_after_the_completion_is_counted() -> None:
    history = one_step().turn(2.2).completed(2, 5).scheduled(2.3, 8, name="classify", key="k")
    assert steps_of(history)[0].scheduled_after == 1
