"""The number of requests of Dapr's retry policies, compared with simulations."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.finance.retry_bounds import policies
from app.finance.retry_bounds.policies import NONE, Retry, duration

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("200ms", 0.2), ("1m30s", 90), ("1.5s", 1.5), ("1h", 3600), ("250", 0.25), (250, 0.25), ("0s", 0)],
)
def test_durations_as_go_reads_them(text: Any, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5 s", "-1s", "s", "5x", "1h-2m", None])
def test_what_go_could_not_read_is_an_error(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


def test_a_policy_without_settings_retries_without_end() -> None:
    assert Retry().requests is None
    assert Retry().duration == timedelta(seconds=5)
    assert NONE.requests == 1


def test_a_constant_policy_makes_one_request_for_each_retry() -> None:
    policy = Retry(duration=SECOND, max_retries=3)
    assert policy.requests == 4
    assert policy.pauses(4) == 3 * SECOND
    assert policy.longest_duration(4, 60 * SECOND) == 243 * SECOND


def test_an_exponential_policy_without_a_count_ends_after_a_quarter_of_an_hour() -> None:
    policy = Retry(exponential=True)
    assert policy.requests is not None
    assert 35 <= policy.requests <= 45
    assert policy.longest_duration(policy.requests, 60 * SECOND) == timedelta(minutes=16)


def test_an_exponential_policy_begins_with_half_a_second_whatever_its_duration() -> None:
    policy = Retry(exponential=True, duration=timedelta(hours=1), max_interval=2 * SECOND, max_retries=2)
    assert policy.requests == 3
    assert policy.pauses(3) == 1.5 * (0.5 + 0.75) * SECOND
    assert policy.first_pause == timedelta(milliseconds=250)


def test_without_any_pause_there_is_no_bound() -> None:
    assert Retry(exponential=True, max_interval=timedelta()).requests is None


@given(st.integers(0, 60), st.floats(0.05, 90), st.integers(0, 2**32))
def test_no_simulation_of_an_exponential_policy_exceeds_its_bounds(retries: int, longest: float, seed: int) -> None:
    """Simulates the policy as its library does, with random pauses and requests that fail at once or late."""
    policy = Retry(exponential=True, max_interval=timedelta(seconds=longest), max_retries=retries)
    dice = random.Random(seed)
    late = dice.choice((0.0, 0.0, 30.0))
    elapsed, interval, requests = late, 0.5, 1
    while requests <= retries:
        pause = interval * dice.uniform(0.5, 1.5)
        interval = longest if interval >= longest / 1.5 else interval * 1.5
        if elapsed + pause > policies.LONGEST_RETRYING.total_seconds():
            break
        elapsed, requests = elapsed + pause + late, requests + 1
    assert policy.requests is not None
    assert requests <= policy.requests
    assert elapsed <= policy.longest_duration(policy.requests, timedelta(seconds=late)).total_seconds() + 1e-6
