"""What a running task is stuck at: the last error, which attempt of how many, and when it is tried again."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from app.dapr.history.model import WorkflowRun
from app.dapr.history.parse import parse
from app.domain.errors import Unreachable
from app.domain.models import Retrying
from app.tasks.stuck_steps import STUCK_AFTER, Stuck, retrying
from tests.dapr.history.told import Told, at

RULES = json.dumps({"rules": {"retries": {"attempts": 30}}})


def begun() -> Told:
    """A run whose first step has failed once."""
    told = Told().turn(1).started(0, text=RULES).scheduled(1, 1, name="classify", key="k1")
    return told.turn(3).failed(2, 1, "ModelUnavailable", "status: llm: status 503")


def run(told: Told) -> WorkflowRun:
    """As daprd would tell it."""
    return parse("acme:T-1", told.events)


def test_a_pause_before_the_next_attempt_says_when_it_ends() -> None:
    found = retrying(run(begun().pauses(3, 2, due=9, key="k1")))
    assert found == Retrying(
        step="classify",
        attempt=1,
        attempts=30,
        error="llm: status 503",
        code="status",
        next_at=at(9).isoformat(timespec="seconds"),
    )
    assert found.words == (f"classify: attempt 1 of 30 failed, next at {at(9):%Y-%m-%d %H:%M:%S} UTC: llm: status 503")


def test_an_attempt_that_is_under_way_tells_of_the_one_before() -> None:
    told = begun().pauses(3, 2, due=9, key="k1").turn(9).fired(9, 2).scheduled(9, 3, name="classify", key="k1")
    found = retrying(run(told))
    assert found is not None
    assert (found.attempt, found.next_at) == (1, None)
    assert "the next is under way" in found.words
    again = retrying(run(told.turn(11).failed(10, 3, "E", "once more").pauses(11, 4, due=15, key="k1")))
    assert again is not None
    assert (again.attempt, again.error, again.code) == (2, "E: once more", None), "somebody else's error"


def test_a_step_that_was_completed_after_all_is_not_stuck() -> None:
    told = begun().pauses(3, 2, due=9, key="k1").turn(9).fired(9, 2).scheduled(9, 3, name="classify", key="k1")
    assert retrying(run(told.turn(11).completed(10, 3, "{}"))) is None


def test_a_run_that_is_over_or_at_work_is_not_stuck() -> None:
    assert retrying(run(begun().pauses(3, 2, due=9, key="k1").ended(5))) is None
    assert retrying(run(Told().turn(1).started(0).scheduled(1, 1))) is None


def test_without_rules_in_the_input_the_bound_is_not_known() -> None:
    told = Told().turn(1).started(0, text="no JSON").scheduled(1, 1, key="k1").turn(3).failed(2, 1)
    found = retrying(run(told.pauses(3, 2, due=9, key="k1")))
    assert found is not None
    assert found.attempts is None
    assert "attempt 1 failed" in found.words


def test_only_what_stands_still_is_looked_at() -> None:
    asked: list[str] = []

    def read(task_id: str) -> WorkflowRun:
        asked.append(task_id)
        return run(begun().pauses(3, 2, due=9, key="k1"))

    stuck = Stuck(read, lambda: at(100))
    assert stuck.look("a", None) is None
    assert stuck.look("a", at(100) - STUCK_AFTER + timedelta(milliseconds=1)) is None
    assert asked == []
    assert stuck.look("a", at(100) - STUCK_AFTER) is not None


@pytest.mark.parametrize("error", [Unreachable("away"), ValueError("not a history")])
def test_a_history_that_cannot_be_read_hides_no_task(error: Exception) -> None:
    def read(_: str) -> WorkflowRun:
        raise error

    assert Stuck(read, lambda: at(100)).look("a", at(1)) is None
