"""What a failure comes from: the messages that this agent, its sidecar and other people's code write."""

from __future__ import annotations

import pytest

from app.dapr.history.causes import Cause, cause, cause_of, timed_out
from app.dapr.history.model import Failure
from app.dapr.history.parse import parse
from app.dapr.systems import _accepted, _failure
from app.domain.errors import ModelRefused, Refused, SystemUnavailable
from app.llm.conversation import _CAUSES, _explained
from tests.dapr.history.told import Told

CONVERSING = "failed conversing with component llm: "
# What Dapr says, as the gateway is told it, and what it comes from in the gateway's own words.
FROM_DAPR = {
    f"{CONVERSING}circuit breaker is open": Cause.BREAKER_OPEN,
    f"{CONVERSING}too many requests": Cause.BREAKER_OPEN,
    f"{CONVERSING}API returned unexpected status code: 429: slow down": Cause.RATE_LIMIT,
    f"{CONVERSING}API returned unexpected status code: 500: oh": Cause.PROVIDER_ERROR,
    f"{CONVERSING}context deadline exceeded": Cause.TIMEOUT,
    f"{CONVERSING}API returned unexpected status code: 401: key": Cause.REFUSED,
    f"{CONVERSING}Post http://x: EOF": Cause.PROVIDER_ERROR,
    f"{CONVERSING}invalid character '<'": Cause.PROVIDER_ERROR,
    f"{CONVERSING}dial tcp: connection refused": Cause.PROVIDER_ERROR,
    "failed to connect to all addresses; last error: x": Cause.SIDECAR_GONE,
}
SYSTEM_STATUS = {503: Cause.TOOL_ERROR, 500: Cause.TOOL_ERROR, 504: Cause.TIMEOUT, 429: Cause.RATE_LIMIT}
FOREIGN = [
    ("TimeoutError", "", Cause.TIMEOUT),
    ("java.util.concurrent.TimeoutException", "x", Cause.TIMEOUT),
    ("ReadTimeout", "", Cause.TIMEOUT),
    ("Exception", "Request timed out.", Cause.TIMEOUT),
    ("RateLimitError", "Error code: 429 - quota", Cause.RATE_LIMIT),
    ("InternalServerError", "openai: Error code: 503 - overloaded", Cause.PROVIDER_ERROR),
    ("HTTPError", "status code: 503", Cause.TOOL_ERROR),
    ("ConnectionError", "connection reset by peer", Cause.TOOL_ERROR),
    ("KeyError", "'order'", Cause.BUG),
    ("NonDeterminismError", "A previous execution called create_timer", Cause.BUG),
    ("WorkflowAccessPolicyDenied", "no", Cause.REFUSED),
    ("Exception", "card declined", Cause.UNKNOWN),
    ("RuntimeError", "no", Cause.UNKNOWN),
]


@pytest.mark.parametrize("details", FROM_DAPR)
def test_a_model_call_as_dapr_tells_it_and_as_the_gateway_does(details: str) -> None:
    told = _explained("llm", details)
    kind = "NonRetryableError" if isinstance(told, ModelRefused) else type(told).__name__
    assert cause(Failure(kind, str(told))) is FROM_DAPR[details]
    assert cause(Failure("DaprGrpcError", details)) in (FROM_DAPR[details], Cause.UNKNOWN)


def test_every_word_of_the_gateway_for_a_failure_says_what_it_comes_from() -> None:
    for sign, *_ in _CAUSES:
        told = _explained("llm", sign)
        assert cause(Failure(type(told).__name__, str(told))) not in (Cause.UNKNOWN, Cause.BUG, Cause.TOOL_ERROR), sign


@pytest.mark.parametrize("status", SYSTEM_STATUS)
def test_a_system_that_answers_with_an_error(status: int) -> None:
    assert cause(Failure("SystemUnavailable", _failure("orders", "get", status, ""))) is SYSTEM_STATUS[status]


def test_a_system_behind_an_open_breaker() -> None:
    message = _failure("orders", "get", 500, "circuit breaker is open")
    assert cause(Failure("SystemUnavailable", message)) is Cause.BREAKER_OPEN


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ("TimeoutError", Cause.TIMEOUT),
        ("ClientConnectorError", Cause.SIDECAR_GONE),
        ("ServerDisconnectedError", Cause.SIDECAR_GONE),
        ("ClientOSError", Cause.SIDECAR_GONE),
        ("ContentTypeError", Cause.TOOL_ERROR),
    ],
)
def test_a_call_that_did_not_reach_the_system(error: str, wanted: Cause) -> None:
    message = f"orders/get: {error} at the sidecar http://127.0.0.1:3510; it is tried again later"
    assert cause(Failure("SystemUnavailable", message)) is wanted


def test_an_answer_of_a_system_that_is_a_refusal_or_nonsense() -> None:
    with pytest.raises(Refused) as refusal:
        _accepted("refunds", "post", {"ok": False, "code": "exceeds_refundable"})
    with pytest.raises(SystemUnavailable) as nonsense:
        _accepted("refunds", "post", [])
    assert cause(Failure("NonRetryableError", str(refusal.value))) is Cause.REFUSED
    assert cause(Failure("SystemUnavailable", str(nonsense.value))) is Cause.TOOL_ERROR


def test_a_fault_of_our_own() -> None:
    message = "step classify: TimeoutError in classify (line 12); mend it, then `task resume`"
    assert cause(Failure("NonRetryableError", message)) is Cause.BUG


@pytest.mark.parametrize(("kind", "message", "wanted"), FOREIGN)
def test_other_peoples_failures(kind: str, message: str, wanted: Cause) -> None:
    assert cause(Failure(kind, message)) is wanted


def test_the_innermost_failure_that_says_anything_decides() -> None:
    assert cause(Failure("TaskFailedError", "x", Failure("E", "y", Failure("KeyError", "z")))) is Cause.BUG
    assert cause(Failure("KeyError", "x", Failure("E", "y"))) is Cause.BUG


def test_attempts_whose_time_was_up() -> None:
    events = Told().turn(1).started(0).scheduled(1, 1, key="k1").scheduled(1, 2, key="k2").scheduled(1, 3, key="k3")
    events.turn(3).failed(2, 1, "TimeoutError", "").failed(2, 2, "KeyError", "").ended(4)
    run = parse("i", events.events)
    assert [(step.execution_id, attempt.event_id) for step, attempt in timed_out(run)] == [("k1", 1)]
    assert [cause_of(step.last) for step in run.steps] == [Cause.TIMEOUT, Cause.BUG, Cause.UNKNOWN]
    assert cause_of(parse("i", events.events[:5]).steps[0].last) is None
