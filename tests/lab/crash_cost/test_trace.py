"""The seed decides where workers are killed; all moments of a task are equally likely."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.crash_cost.trace import (
    MODEL_SECONDS,
    ON_THE_WAY_SECONDS,
    SYSTEM_SECONDS,
    Kind,
    after_all_model_calls,
    at,
    seconds,
    trace,
)
from tests.lab.crash_cost.kit import timeline

NAMES = [f"T-{number}" for number in range(40)]
TIMELINES = {name: timeline(name) for name in NAMES}


def test_the_same_seed_gives_the_same_kills_and_another_gives_others() -> None:
    assert trace("7 tickets", 0.3, TIMELINES) == trace("7 tickets", 0.3, dict(reversed(TIMELINES.items())))
    assert trace("7 tickets", 0.3, TIMELINES) != trace("8 tickets", 0.3, TIMELINES)


@pytest.mark.parametrize(("rate", "kills"), [(0.05, 2), (0.15, 6), (0.3, 12), (1, 40), (0.001, 1)])
def test_a_share_of_the_tasks_is_killed_once_each(rate: float, kills: int) -> None:
    killed = [point.job for point in trace("7", rate, TIMELINES)]
    assert len(killed) == len(set(killed)) == kills


@given(st.integers(), st.floats(0.01, 1))
def test_each_equal_part_of_a_tasks_time_has_one_kill(seed: int, rate: float) -> None:
    moments = [point.moment for point in trace(f"{seed}", rate, TIMELINES)]
    assert [int(moment * len(moments)) for moment in moments] == list(range(len(moments)))


def test_a_point_is_found_by_the_time_that_is_over() -> None:
    whole, steps = seconds(TIMELINES["T-0"]), TIMELINES["T-0"]
    first = ON_THE_WAY_SECONDS + MODEL_SECONDS
    points = [
        at("T-0", moment / whole, steps)
        for moment in (0, ON_THE_WAY_SECONDS + 0.001, first - 0.001, first + 0.001, first + ON_THE_WAY_SECONDS + 0.001)
    ]
    assert [(point.position, point.before_work) for point in points] == [
        (0, True),
        (0, False),
        (0, False),
        (1, True),
        (1, False),
    ]
    assert [point.kind(steps) for point in points][1:] == [
        Kind.MODEL_CALL,
        Kind.MODEL_CALL,
        Kind.BETWEEN,
        Kind.SYSTEM_CALL,
    ]


@pytest.mark.parametrize("moment", [0.999999, 1.0])
def test_the_last_moment_is_in_the_last_request(moment: float) -> None:
    steps = TIMELINES["T-0"]
    assert at("T-0", moment, steps).position == len(steps) - 1
    assert after_all_model_calls("T-0", steps).kind(steps) is Kind.SYSTEM_CALL


def test_kinds_are_as_frequent_as_their_share_of_the_time() -> None:
    many = {f"T-{number}": timeline(f"T-{number}") for number in range(5_000)}
    kinds = Counter(point.kind(many[point.job]) for point in trace("7", 1, many))
    whole = 3 * MODEL_SECONDS + 2 * SYSTEM_SECONDS + 5 * ON_THE_WAY_SECONDS
    for kind, share in (
        (Kind.MODEL_CALL, 3 * MODEL_SECONDS / whole),
        (Kind.SYSTEM_CALL, 2 * SYSTEM_SECONDS / whole),
        (Kind.BETWEEN, 5 * ON_THE_WAY_SECONDS / whole),
    ):
        assert kinds[kind] / len(many) == pytest.approx(share, abs=0.002)
