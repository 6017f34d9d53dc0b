"""The requests that a kill makes each arm repeat."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.crash_cost.trace import Arm, Point, all_requests, at, expected_ratio, expected_repeats
from tests.lab.crash_cost.kit import timeline

STEPS = {"a": timeline("a"), "b": timeline("b")}  # model 1, account, model 2, model 3, notice


@pytest.mark.parametrize(
    ("position", "before_work", "restart", "resume"),
    [
        (0, True, [], []),
        (0, False, ["a-1"], ["a-1"]),
        (1, True, ["a-1"], []),
        (1, False, ["a-1"], []),
        (2, True, ["a-1"], []),
        (2, False, ["a-1", "a-2"], ["a-2"]),
        (3, False, ["a-1", "a-2", "a-3"], ["a-3"]),
        (4, False, ["a-1", "a-2", "a-3"], []),
    ],
)
def test_a_restart_repeats_all_started_calls_and_a_resume_the_one_in_flight(
    position: int, before_work: bool, restart: list[str], resume: list[str]
) -> None:
    points = [Point("a", 0.5, position, before_work)]
    assert expected_repeats(Arm.RESTART, points, STEPS) == Counter(restart)
    assert expected_repeats(Arm.RESUME, points, STEPS) == Counter(resume)


@given(st.lists(st.floats(0, 1), max_size=5))
def test_a_resume_repeats_at_most_one_call_and_never_more_than_a_restart(moments: list[float]) -> None:
    points = [at("a", moment, STEPS["a"]) for moment in moments]
    resume, restart = (expected_repeats(arm, points, STEPS) for arm in (Arm.RESUME, Arm.RESTART))
    assert resume.total() <= len(points)
    assert resume <= restart <= Counter({digest: len(points) for digest in all_requests(["a"], STEPS)})


def test_all_requests_has_each_model_call_once() -> None:
    assert all_requests(["a", "b"], STEPS) == Counter(["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"])


@pytest.mark.parametrize("calls", [1, 2, 3, 20, 47])
def test_the_ratio_is_that_of_equal_calls(calls: int) -> None:
    steps = {"a": timeline("a", calls)}
    points = [Point("a", 0.5, position, False) for position, request in enumerate(steps["a"]) if request.paid]
    resume, restart = (expected_repeats(arm, points, steps).total() for arm in (Arm.RESUME, Arm.RESTART))
    assert resume / restart == pytest.approx(expected_ratio(calls))
