"""Causes of failures: of our own errors by their code, of those of Dapr and other code by patterns."""

from __future__ import annotations

import pytest

from app.config.policy import Losses
from app.dapr.history.causes import Cause, cause, cause_of, cause_of_code, message_of, timed_out_attempts, words_of
from app.dapr.history.entries import failure
from app.dapr.history.model import Failure
from app.dapr.history.parse import parse
from app.dapr.systems import _answer_body, _error
from app.domain.errors import (
    CODES,
    AttemptAlreadyFailed,
    FailureCause,
    LedgerTrouble,
    LedgerUnavailable,
    ModelUnavailable,
    RefundAgentError,
    Refused,
    StepFault,
    StepSetAside,
    SystemUnavailable,
)
from app.llm.call import FailedRequest, objection
from app.llm.conversation import _CAUSES, _translate
from app.worker.worker import failure_details
from tests.dapr.history.told import Told, at

CONVERSING = "failed conversing with component llm: "
# Dapr's errors of a model call, and the cause of the error that the gateway makes of each.
FROM_DAPR = {
    f"{CONVERSING}circuit breaker is open": Cause.BREAKER_OPEN,
    f"{CONVERSING}too many requests": Cause.BREAKER_OPEN,
    f"{CONVERSING}API returned unexpected status code: 429: slow down": Cause.RATE_LIMIT,
    f"{CONVERSING}API returned unexpected status code: 500: oh": Cause.PROVIDER_ERROR,
    f"{CONVERSING}API returned unexpected status code: 502: oh": Cause.PROVIDER_ERROR,
    f"{CONVERSING}API returned unexpected status code: 504: oh": Cause.TIMEOUT,
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
    ("HTTPError", "status: 503 timed out", Cause.TIMEOUT),
    ("StatusError", "breaker_open: says somebody else", Cause.UNKNOWN),
    ("ModelUnavailable", "cutlery: not a code of ours", Cause.UNKNOWN),
    ("NonRetryableError", "no_answer_in_time, but no code", Cause.UNKNOWN),
    ("RuntimeError", "no", Cause.UNKNOWN),
]


def recorded(error: Exception) -> Failure:
    """An activity's error as the history stores it."""
    return failure(failure_details(error))


@pytest.mark.parametrize("details", FROM_DAPR)
def test_a_model_error_has_the_same_cause_in_daprs_words_and_in_ours(details: str) -> None:
    assert cause(recorded(_translate("llm", details))) is FROM_DAPR[details]
    assert cause(Failure("DaprGrpcError", details)) in (FROM_DAPR[details], Cause.UNKNOWN)


def test_every_error_of_the_gateway_has_a_cause() -> None:
    for sign, *_ in _CAUSES:
        matched = cause(recorded(_translate("llm", sign)))
        assert matched not in (Cause.UNKNOWN, Cause.BUG, Cause.TOOL_ERROR), sign


@pytest.mark.parametrize("status", SYSTEM_STATUS)
def test_a_system_that_answers_with_an_error(status: int) -> None:
    assert cause(recorded(_error("orders", "get", status, ""))) is SYSTEM_STATUS[status]


def test_a_system_behind_an_open_breaker() -> None:
    assert cause(recorded(_error("orders", "get", 500, "circuit breaker is open"))) is Cause.BREAKER_OPEN


def test_an_answer_of_a_system_that_is_a_refusal_or_nonsense() -> None:
    with pytest.raises(Refused) as refusal:
        _answer_body("refunds", "post", {"ok": False, "code": "exceeds_refundable"})
    with pytest.raises(SystemUnavailable) as nonsense:
        _answer_body("refunds", "post", [])
    assert cause(recorded(refusal.value)) is Cause.REFUSED
    assert cause(recorded(nonsense.value)) is Cause.TOOL_ERROR


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (StepFault("classify", "TimeoutError in classify (line 12)"), Cause.BUG),
        (StepSetAside("acme:T-1", "classify", 3), Cause.WORKER_GONE),
        (AttemptAlreadyFailed("task acme:T-1: this attempt has failed elsewhere"), Cause.UNKNOWN),
        (LedgerUnavailable(LedgerTrouble.LOCKED, "another process holds the ledger"), Cause.LEDGER_ERROR),
    ],
)
def test_other_errors_of_our_own(error: RefundAgentError, wanted: Cause) -> None:
    assert cause(recorded(error)) is wanted


def test_a_step_that_has_lost_too_many_answers() -> None:
    losses = Losses(attempts=30, first_seconds=1, max_seconds=60, billed_attempts=1)
    lost = objection("llm", [FailedRequest("no_answer_in_time: late", at(1))], losses, at(2))
    assert lost is not None
    assert "no answer in time" in str(lost)
    assert cause(recorded(lost)) is Cause.PROVIDER_ERROR


# Messages that match the pattern of another cause, which must not count for an error of ours.
REWORDED = (
    "x",
    "the refusal timed out with status 429",
    "circuit breaker is open",
    "step draft: KeyError in draft (line 1)",
    "status: 503",
    "breaker_open: a code is the first word alone",
    "",
)


@pytest.mark.parametrize("code", sorted(CODES))
@pytest.mark.parametrize("words", REWORDED)
def test_a_reworded_message_keeps_its_cause(code: str, words: str) -> None:
    for error in (RefundAgentError(words), SystemUnavailable(words)):
        error.code = code
        failure = recorded(error)
        assert cause(failure) is cause_of_code(code)
        assert (words_of(failure), message_of(failure)) == (f"{code}: {words}", words)


def test_errors_of_others_start_with_their_type() -> None:
    failure = Failure("KeyError", "status: 1")
    assert words_of(failure) == message_of(failure) == "KeyError: status: 1"


@pytest.mark.parametrize(
    "error", [ModelUnavailable("late", cause=FailureCause.CONNECTION_LOST), AttemptAlreadyFailed("late")]
)
def test_a_passing_error_is_recorded_under_its_class_and_retried(error: RefundAgentError) -> None:
    assert recorded(error) == Failure(type(error).__name__, f"{error.code}: late")


def test_a_final_error_is_recorded_as_not_retried() -> None:
    assert recorded(Refused("no", reason="above_refundable")) == Failure("NonRetryableError", "refused: no")
    assert not failure_details(Refused("no", reason="x")).HasField("stackTrace")
    assert recorded(KeyError("x")) == Failure("KeyError", "'x'"), "not one of ours"


@pytest.mark.parametrize(("kind", "message", "wanted"), FOREIGN)
def test_failures_of_others(kind: str, message: str, wanted: Cause) -> None:
    assert cause(Failure(kind, message)) is wanted


def test_the_innermost_failure_with_a_known_cause_decides() -> None:
    assert cause(Failure("TaskFailedError", "x", Failure("E", "y", Failure("KeyError", "z")))) is Cause.BUG
    assert cause(Failure("KeyError", "x", Failure("E", "y"))) is Cause.BUG


def test_timed_out_attempts() -> None:
    events = Told().turn(1).started(0).scheduled(1, 1, key="k1").scheduled(1, 2, key="k2").scheduled(1, 3, key="k3")
    events.turn(3).failed(2, 1, "TimeoutError", "").failed(2, 2, "KeyError", "").ended(4)
    run = parse("i", events.events)
    assert [(step.execution_id, attempt.event_id) for step, attempt in timed_out_attempts(run)] == [("k1", 1)]
    assert [cause_of(step.last) for step in run.steps] == [Cause.TIMEOUT, Cause.BUG, Cause.UNKNOWN]
    assert cause_of(parse("i", events.events[:5]).steps[0].last) is None
