"""The causes of failures in a history.

An error of ours starts with its code, and one table maps codes to causes; the text after the code has no effect.
Errors that others write (daprd, the SDK, libraries, other programs) are recognised by their type and by patterns in
their message: the first pattern that matches decides. If none matches, the cause is `unknown`, not the nearest guess.

Codes and causes are two lists on purpose. A code says exactly what failed, and whether it may have been billed. Causes
are what failures are counted by, and include some that no error reports, such as a worker that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum

from app.dapr.history.model import Attempt, AttemptOutcome, Failure, Step, WorkflowRun
from app.domain.errors import (
    AnswersLost,
    DecisionRefused,
    FailureCause,
    LedgerGone,
    LedgerTrouble,
    LedgerUnavailable,
    RefundAgentError,
    Refused,
    StepFault,
    StepNotInHistory,
    StepOverdue,
    StepSetAside,
    SystemRefused,
    SystemUnavailable,
    error_classes,
    split_code,
)


class Cause(StrEnum):
    """The cause of a failure, by which failures are counted."""

    PROVIDER_ERROR = "provider_error"  # the model's provider answers with an error, nonsense, or not at all
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    BREAKER_OPEN = "breaker_open"  # a circuit breaker refused the request; none was made
    TOOL_ERROR = "tool_error"  # a system behind a tool is down or answers with an error
    LEDGER_ERROR = "ledger_error"  # this agent's ledger cannot be read or written
    REFUSED = "refused"  # the answer was no, and a retry cannot change it
    WORKER_GONE = "worker_gone"  # the worker died
    WORKER_STOPPED = "worker_stopped"  # the worker was told to stop, and its grace period ended
    SIDECAR_GONE = "sidecar_gone"  # the sidecar that waited for the result died; the worker did not
    BUG = "bug"  # an error in the code
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """The cause as words for people, such as `worker gone`."""
        return self.value.replace("_", " ")


# The codes of our own errors by cause. A code that is missing here has the cause `unknown`.
_CODES: Mapping[Cause, tuple[str, ...]] = {
    Cause.PROVIDER_ERROR: (
        FailureCause.STATUS,
        FailureCause.REFUSED_CONNECTION,
        FailureCause.CONNECTION_LOST,
        FailureCause.MALFORMED,
        FailureCause.TOO_LARGE,
        FailureCause.OTHER,
        AnswersLost.code,
    ),
    Cause.RATE_LIMIT: (FailureCause.RATE_LIMIT,),
    Cause.TIMEOUT: (FailureCause.NO_ANSWER_IN_TIME, StepOverdue.code),
    Cause.BREAKER_OPEN: (FailureCause.BREAKER_OPEN,),
    Cause.TOOL_ERROR: (SystemUnavailable.code,),
    Cause.LEDGER_ERROR: (LedgerGone.code, LedgerUnavailable.code, *LedgerTrouble),
    Cause.REFUSED: (
        FailureCause.MODEL_REFUSED,
        SystemRefused.code,
        Refused.code,
        DecisionRefused.code,
        StepNotInHistory.code,
    ),
    Cause.WORKER_GONE: (StepSetAside.code,),
    Cause.SIDECAR_GONE: (FailureCause.SIDECAR_GONE,),
    Cause.BUG: (StepFault.code, RefundAgentError.code),
}
_CAUSE_OF_CODE = {code: cause for cause, codes in _CODES.items() for code in codes}
# The SDK's type for a failure that it does not retry. A failure of ours that is retried has the name of its class.
NOT_RETRIED = "NonRetryableError"
_OUR_TYPES = frozenset({NOT_RETRIED} | {kind.__name__ for kind in error_classes() if kind.retryable})

# Exceptions of Python, pydantic and the SDK that show a bug.
_BUG = re.compile(
    r"(?:Arithmetic|Assertion|Attribute|Import|Index|Key|Lookup|ModuleNotFound|Name|NotImplemented|Overflow|Recursion"
    r"|Syntax|Type|UnboundLocal|UnicodeDecode|UnicodeEncode|Validation|Value|ZeroDivision"
    r"|NonDeterminism|WorkflowState|OrchestratorNotRegistered|ActivityNotRegistered)Error"
)
_REFUSALS = frozenset({"WorkflowAccessPolicyDenied", "WorkflowInstanceAlreadyExists"})
# A half-open breaker says "too many requests", as a rate limit does, so the breaker's pattern comes first.
_PATTERNS = (
    (Cause.BREAKER_OPEN, r"circuit ?breaker|conversing with component \S+: too many requests"),
    (Cause.RATE_LIMIT, r"\b429\b|too many requests|rate.?limit|\bquota\b"),
    (Cause.TIMEOUT, r"time[sd]?[ -]?out|deadline|\bstatus (?:code:? )?(?:408|504)\b"),
    (Cause.SIDECAR_GONE, r"failed to connect to all"),
    (Cause.REFUSED, r"\brefuse[sd]\b(?<!connection refused)|\bstatus (?:code:? )?4(?:0[0134]|22)\b|permission.?denied"),
)
_COMPILED = tuple((cause, re.compile(pattern, re.IGNORECASE)) for cause, pattern in _PATTERNS)
_MODEL = re.compile(r"conversing with component|\b(?:openai|anthropic|bedrock|mistral)\b", re.IGNORECASE)
_DOWN = re.compile(
    r"\bstatus (?:code:? )?5\d\d\b|\berror code:? 5\d\d\b|unavailable"
    r"|connection (?:was cut|reset|refused)|broken pipe|unexpected eof",
    re.IGNORECASE,
)


def cause_of_code(code: str) -> Cause:
    """The cause of an error of ours, by its code."""
    return _CAUSE_OF_CODE.get(code, Cause.UNKNOWN)


def code_of(failure: Failure) -> str:
    """The code of an error of ours; empty if the failure is not one of ours."""
    return split_code(failure.message)[0] if failure.type in _OUR_TYPES else ""


def words_of(failure: Failure) -> str:
    """The text of a failure for the record: `CODE: message` for an error of ours, else `Type: message`."""
    return failure.message if code_of(failure) else f"{failure.type}: {failure.message}"


def message_of(failure: Failure) -> str:
    """The text of a failure for people: the message alone for an error of ours, else `Type: message`."""
    return split_code(failure.message)[1] if code_of(failure) else words_of(failure)


def cause(failure: Failure) -> Cause:
    """The cause of a failure: that of the innermost nested failure whose cause is known."""
    inner = cause(failure.inner) if failure.inner else Cause.UNKNOWN
    return inner if inner is not Cause.UNKNOWN else _outer_cause(failure)


def cause_of(attempt: Attempt) -> Cause | None:
    """Why an attempt has no result; None if it has one or is still open."""
    if attempt.outcome is AttemptOutcome.LOST:
        return Cause.UNKNOWN
    return cause(attempt.failure) if attempt.failure else None


def timed_out_attempts(run: WorkflowRun) -> Iterator[tuple[Step, Attempt]]:
    """The attempts of a run that failed with a time-out, each with its step."""
    for step in run.steps:
        yield from ((step, attempt) for attempt in step.attempts if cause_of(attempt) is Cause.TIMEOUT)


def _outer_cause(failure: Failure) -> Cause:
    """The cause of a failure without regard to those nested in it."""
    if code := code_of(failure):
        return cause_of_code(code)
    kind, message = failure.type.rsplit(".", 1)[-1], failure.message
    if "timeout" in kind.lower():
        return Cause.TIMEOUT
    if kind in _REFUSALS:
        return Cause.REFUSED
    for matched, pattern in _COMPILED:
        if pattern.search(message):
            return matched
    if _DOWN.search(message):
        return Cause.PROVIDER_ERROR if _MODEL.search(message) else Cause.TOOL_ERROR
    return Cause.BUG if _BUG.fullmatch(kind) else Cause.UNKNOWN
