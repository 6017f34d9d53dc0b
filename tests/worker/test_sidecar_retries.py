"""What daprd counts becomes requests, and finds the calls that were most likely asked again."""

from __future__ import annotations

import itertools
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from app.domain.errors import FailureCause
from app.domain.models import CallState
from app.worker.metric_windows import Window
from app.worker.sidecar_retries import ONE_RETRY, Call, RetryPolicy, allocate, left_for_provider
from tests.paths import ROOT

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ONCE = RetryPolicy(1, timedelta(milliseconds=500), jitter=0.5)
TWICE = RetryPolicy(2, timedelta(milliseconds=500), jitter=0.5)
LATER = NOON + timedelta(seconds=20)


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def call(name: str, start: float, seconds: float | None, **changes: Any) -> Call:
    """A settled call, or one that still runs when it has no `seconds`."""
    ended = None if seconds is None else at(start + seconds)
    state = CallState.STARTED if seconds is None else CallState.SETTLED
    values: dict[str, Any] = {"call_id": name, "started_at": at(start), "ended_at": ended, "state": state}
    return Call(**values | changes)


def failed(name: str, start: float, seconds: float, cause: FailureCause = FailureCause.STATUS) -> Call:
    """A call that failed."""
    return call(name, start, seconds, state=CallState.FAILED, error=cause.tell("model component llm: it failed"))


def window(retried: int, start: float = 0, end: float = 10) -> Window:
    """Ten seconds in which so many calls were asked again."""
    return Window("llm", at(start), at(end), retried)


def test_the_numbers_are_those_that_users_are_told_to_take() -> None:
    said = (ROOT / "docs" / "operations.md").read_text()
    (block,) = [
        yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", said, re.DOTALL) if "maxRetries" in each
    ]
    retry = block["spec"]["policies"]["retries"][block["spec"]["targets"]["components"]["llm"]["outbound"]["retry"]]
    assert retry["policy"] == "constant"
    assert retry["maxRetries"] == ONE_RETRY.max_retries
    assert retry["duration"] == f"{ONE_RETRY.first_pause.total_seconds():.0f}s"


def test_failed_calls_come_first_then_the_longest() -> None:
    calls = [call("short", 1, 0.5), call("long", 1, 3.0), failed("failed", 1, 0.4), call("running", 8, None)]
    for retried, expected in (
        (1, {"failed"}),
        (2, {"failed", "running"}),
        (3, {"failed", "running", "long"}),
        (4, {"failed", "running", "long", "short"}),
    ):
        assert set(allocate(window(retried), calls, ONCE, LATER).shares) == expected


@pytest.mark.parametrize(
    "other",
    [
        call("too quick", 1, 0.2),
        call("before", -5, 5),
        call("after", 10, 3),
        call("has its share", 1, 3, retries=1),
        failed("refused at once", 1, 0.01, FailureCause.BREAKER_OPEN),
    ],
    ids=lambda other: other.call_id,
)
def test_what_was_not_asked_again_is_allocated_nothing_and_the_rest_stays_unallocated(other: Call) -> None:
    found = allocate(window(2), [call("asked again", 1, 1), other], ONCE, LATER)
    assert found.shares == {"asked again": 1}
    assert (found.count, found.allocated) == (2, 1)


def test_a_call_that_nobody_saw_end_comes_last() -> None:
    lost = call("lost", 1, None, state=CallState.INTERRUPTED)
    found = allocate(window(1), [lost, call("settled", 1, 1)], ONCE, LATER)
    assert set(found.shares) == {"settled"}


def test_a_retry_that_the_breaker_refused_was_no_request_and_is_taken_off_once() -> None:
    refused = failed("refused", 9, 0.9, FailureCause.BREAKER_OPEN)
    first = allocate(window(2), [refused, call("asked again", 1, 1)], ONCE, LATER)
    assert (first.count, dict(first.shares), set(first.in_vain)) == (1, {"asked again": 1}, {"refused"})
    second = allocate(window(1, 9.5, 19), [refused, call("next", 12, 1)], ONCE, LATER, first.in_vain)
    assert (second.count, second.in_vain) == (1, frozenset())


def test_a_call_left_unless_the_breaker_refused_it_at_once() -> None:
    assert left_for_provider(failed("refused after a request", 1, 0.3, FailureCause.BREAKER_OPEN), ONCE)
    assert not left_for_provider(failed("refused at once", 1, 0.01, FailureCause.BREAKER_OPEN), ONCE)
    assert left_for_provider(failed("failed", 1, 0.01), ONCE)


def test_with_more_retries_a_failed_call_had_them_all_and_another_at_least_one() -> None:
    found = allocate(window(3), [call("settled", 1, 1), failed("failed", 1, 2)], TWICE, LATER)
    assert found.shares == {"failed": 2, "settled": 1}
    assert (found.count, found.allocated) == (4, 3)


def test_the_same_calls_in_another_order_are_allocated_the_same() -> None:
    calls = [call(str(number), 1, 1) for number in range(10)]
    expected = allocate(window(3), calls, ONCE, LATER)
    random.Random(1).shuffle(calls)
    assert allocate(window(3), calls, ONCE, LATER) == expected


class Sidecar:
    """Makes calls as daprd does: a failed request is announced and asked again after a pause, unless the breaker has
    opened meanwhile. Knows when it announced, and how many requests it made on its own."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.announced: list[datetime] = []
        self.repeated = 0
        self.calls = [self.call(number) for number in range(200)]

    def call(self, number: int) -> Call:
        """One call; one request in three fails, and the breaker is open in every fifth second."""
        start = self.dice.uniform(0, 60)
        if self.breaker_is_open(start):
            return failed(str(number), start, self.dice.uniform(0.001, 0.05), FailureCause.BREAKER_OPEN)
        first = self.dice.choice((0.01, 0.5, 3.0))
        if self.dice.random() > 0.33:
            return call(str(number), start, first)
        self.announced.append(at(start + first))
        until = first + self.dice.uniform(0.25, 0.75)
        if self.breaker_is_open(start + until):
            return failed(str(number), start, until + 0.001, FailureCause.BREAKER_OPEN)
        self.repeated += 1
        second = until + self.dice.choice((0.01, 0.5, 3.0))
        return failed(str(number), start, second) if self.dice.random() < 0.33 else call(str(number), start, second)

    def breaker_is_open(self, seconds: float) -> bool:
        """Whether it is."""
        return int(seconds) % 5 == 4

    def windows(self) -> list[Window]:
        """What looks at its metrics see."""
        looks = [at(0)]
        while looks[-1] < at(80):
            looks.append(looks[-1] + timedelta(seconds=self.dice.choice((0.9, 2, 2, 2, 7))))
        pairs = itertools.pairwise(looks)
        found = [Window("llm", a, b, sum(a < when <= b for when in self.announced)) for a, b in pairs]
        return [each for each in found if each.retried]

    def known(self, when: datetime) -> list[Call]:
        """The calls as the journal has them at a moment."""
        begun = [each for each in self.calls if each.started_at <= when]
        running = {"ended_at": None, "state": CallState.STARTED, "error": ""}
        return [each if each.ended_at and each.ended_at <= when else Call(**vars(each) | running) for each in begun]


@pytest.mark.parametrize("seed", range(40))
def test_the_counts_sum_to_the_requests_that_the_sidecar_made_on_its_own(seed: int) -> None:
    sidecar = Sidecar(seed)
    count, shares, in_vain = 0, dict[str, int](), set[str]()
    for each in sidecar.windows():
        now = each.to_at + timedelta(seconds=0.8)
        calls = [Call(**vars(known) | {"retries": shares.get(known.call_id, 0)}) for known in sidecar.known(now)]
        found = allocate(each, calls, ONCE, now, in_vain)
        assert not set(found.shares) & set(shares), "no call has more than the policy's one retry"
        assert found.allocated <= found.count
        count, shares, in_vain = count + found.count, shares | dict(found.shares), in_vain | found.in_vain
    assert count == sidecar.repeated
    assert sidecar.repeated >= 20
