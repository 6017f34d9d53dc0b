"""The usage of failed and interrupted calls: zero only if that is proved, else an estimate, never unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.errors import FailureCause, with_code
from app.domain.models import CallState, UsageBasis
from app.pricing.charge_types import NOT_REPORTED, CallRecord, TokenUsage
from app.pricing.formula import lost_usage

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOT_KNOWN = NOT_REPORTED
RESERVE = TokenUsage(input_tokens=900, output_tokens=1000, basis=UsageBasis.ESTIMATED)
NOTHING = TokenUsage(input_tokens=0, output_tokens=0, basis=UsageBasis.ESTIMATED)
MAY_HAVE_WORKED = ("no_answer_in_time", "cut", "malformed", "too_large", "model_unavailable")


def call(**changes: Any) -> CallRecord:
    """A call that failed within a second for an unknown cause."""
    values: dict[str, Any] = {
        "call_id": "c1",
        "task_id": "acme:T-1",
        "tenant": "acme",
        "execution_id": "e1",
        "stage": "classify",
        "turn": 1,
        "number": 1,
        "worker": "w1",
        "component": "llm",
        "provider": "conversation.openai",
        "model": "",
        "prompt_version": "p1",
        "request_digest": "d1",
        "state": CallState.FAILED,
        "started_at": NOON,
        "ended_at": NOON + timedelta(seconds=1),
        "reserve_input": 900,
        "reserve_output": 1000,
        "usage": NOT_KNOWN,
    }
    return CallRecord(**(values | changes))


def settled(usage: TokenUsage) -> CallRecord:
    """The call that answered the same step afterwards."""
    return call(number=2, state=CallState.SETTLED, usage=usage)


def failed(cause: str, seconds: float = 0.5) -> CallRecord:
    """A call that failed for this cause after this many seconds."""
    error = with_code(FailureCause(cause), "model component llm: it is asked again later")
    return call(error=error, ended_at=NOON + timedelta(seconds=seconds))


def test_each_cause_survives_its_text() -> None:
    for cause in FailureCause:
        assert FailureCause.from_error(with_code(cause, "model component llm: no")) is cause


@pytest.mark.parametrize("error", ["", "the worker is gone", "status", "model component llm: status: 500"])
def test_an_error_that_names_no_cause_proves_nothing(error: str) -> None:
    assert FailureCause.from_error(error) is FailureCause.OTHER


@pytest.mark.parametrize("cause", sorted(set(FailureCause) - set(MAY_HAVE_WORKED)))
def test_a_refused_call_used_nothing(cause: str) -> None:
    assert lost_usage(failed(cause), None) == NOTHING
    assert (
        lost_usage(failed(cause), settled(TokenUsage(input_tokens=811, output_tokens=32, cached_tokens=100))) == NOTHING
    )


@pytest.mark.parametrize("cause", MAY_HAVE_WORKED)
def test_a_call_that_may_have_been_worked_on_is_never_free(cause: str) -> None:
    assert lost_usage(failed(cause), None) == RESERVE


def test_a_refused_last_request_proves_nothing_about_earlier_ones() -> None:
    assert lost_usage(failed("breaker_open", seconds=121), None) == RESERVE


def test_a_breaker_that_refused_a_repeat_proves_nothing_about_the_first_request() -> None:
    assert lost_usage(failed("breaker_open", seconds=0.7), None) == NOTHING
    assert lost_usage(failed("breaker_open", seconds=1.1), None) == RESERVE
    assert lost_usage(failed("status", seconds=1.1), None) == NOTHING, "refused twice"


def test_the_usage_of_the_steps_answer_is_the_best_estimate() -> None:
    answered = settled(TokenUsage(input_tokens=811, output_tokens=32, cached_tokens=100, reasoning_tokens=8))
    assert lost_usage(failed("cut"), answered) == TokenUsage(
        input_tokens=811, output_tokens=32, basis=UsageBasis.ESTIMATED
    )


def test_a_count_that_the_answer_lacks_comes_from_the_reserve() -> None:
    assert lost_usage(failed("cut"), settled(NOT_KNOWN)) == RESERVE
    assert lost_usage(failed("cut"), settled(TokenUsage(input_tokens=811, output_tokens=None))) == TokenUsage(
        input_tokens=811, output_tokens=1000, basis=UsageBasis.ESTIMATED
    )


def test_a_call_whose_worker_died_has_no_end_and_is_not_free() -> None:
    gone = call(state=CallState.INTERRUPTED, error="the worker is gone", ended_at=None)
    assert lost_usage(gone, None) == RESERVE


def test_a_late_answer_keeps_its_usage() -> None:
    usage = TokenUsage(input_tokens=805, output_tokens=40, cached_tokens=0, reasoning_tokens=0)
    late = call(state=CallState.INTERRUPTED, usage=usage, error="another execution of the step settled first")
    assert lost_usage(late, settled(TokenUsage(input_tokens=811, output_tokens=32))) == usage
