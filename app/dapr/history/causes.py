"""What a failure in a history comes from. Pure.

An error of ours says so by its code, which stands first in the message; one table has the cause of each code, and the
words after it decide nothing. What others write (daprd, the SDK, libraries, other programs) is known by its type and by
signs in its message: the first sign that is found decides. What says nothing is `unknown`, not the nearest guess.

Codes and causes are two lists on purpose. A code says exactly what failed, and whether it may have been billed; a cause
is what failures are counted by, and includes what no error tells of, such as a worker that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum

from app.dapr.history.model import Attempt, AttemptOutcome, Failure, Step, WorkflowRun
from app.domain.errors import (
    DecisionRefused,
    FailureCause,
    LedgerGone,
    LedgerTrouble,
    LedgerUnavailable,
    NotAsked,
    RefundAgentError,
    Refused,
    RepeatedlyLost,
    StepFault,
    StepOverdue,
    StepSetAside,
    SystemRefused,
    SystemUnavailable,
    error_classes,
    split_code,
)


class Cause(StrEnum):
    """Where a failure comes from."""

    PROVIDER_ERROR = "provider_error"  # the model's provider answers with an error, nonsense, or not at all
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    BREAKER_OPEN = "breaker_open"  # nothing was asked: a circuit breaker refused
    TOOL_ERROR = "tool_error"  # a system behind a tool is down or answers with an error
    LEDGER_ERROR = "ledger_error"  # this agent's ledger cannot be read or written
    REFUSED = "refused"  # the answer was no, and asking again changes nothing
    WORKER_GONE = "worker_gone"  # the worker went away without a word
    WORKER_STOPPED = "worker_stopped"  # it was told to stop, and its time of grace was over
    SIDECAR_GONE = "sidecar_gone"  # the worker lived on, but the sidecar that waited for the result did not
    BUG = "bug"  # a fault of the code itself
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """For people."""
        return self.value.replace("_", " ")


# The causes of our own errors; a code that is not here comes from nothing that failures are counted by.
_CODES: Mapping[Cause, tuple[str, ...]] = {
    Cause.PROVIDER_ERROR: (
        FailureCause.STATUS,
        FailureCause.REFUSED_CONNECTION,
        FailureCause.CUT,
        FailureCause.MALFORMED,
        FailureCause.TOO_LARGE,
        FailureCause.OTHER,
        RepeatedlyLost.code,
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
        NotAsked.code,
    ),
    Cause.WORKER_GONE: (StepSetAside.code,),
    Cause.SIDECAR_GONE: (FailureCause.SIDECAR_GONE,),
    Cause.BUG: (StepFault.code, RefundAgentError.code),
}
_OF_CODE = {code: cause for cause, codes in _CODES.items() for code in codes}
# The type of a failure of ours: one that is retried has its class, any other one is what the SDK does not retry.
NOT_RETRIED = "NonRetryableError"
_OUR_TYPES = frozenset({NOT_RETRIED} | {kind.__name__ for kind in error_classes() if kind.passing})

# Python's own, pydantic's, and the SDK's.
_BUG = re.compile(
    r"(?:Arithmetic|Assertion|Attribute|Import|Index|Key|Lookup|ModuleNotFound|Name|NotImplemented|Overflow|Recursion"
    r"|Syntax|Type|UnboundLocal|UnicodeDecode|UnicodeEncode|Validation|Value|ZeroDivision"
    r"|NonDeterminism|WorkflowState|OrchestratorNotRegistered|ActivityNotRegistered)Error"
)
_REFUSALS = frozenset({"WorkflowAccessPolicyDenied", "WorkflowInstanceAlreadyExists"})
# A breaker that lets one probe through says "too many requests", as a rate limit does: the breaker's sign comes first.
_SIGNS = (
    (Cause.BREAKER_OPEN, r"circuit ?breaker|conversing with component \S+: too many requests"),
    (Cause.RATE_LIMIT, r"\b429\b|too many requests|rate.?limit|\bquota\b"),
    (Cause.TIMEOUT, r"time[sd]?[ -]?out|deadline|\bstatus (?:code:? )?(?:408|504)\b"),
    (Cause.SIDECAR_GONE, r"failed to connect to all"),
    (Cause.REFUSED, r"\brefuse[sd]\b(?<!connection refused)|\bstatus (?:code:? )?4(?:0[0134]|22)\b|permission.?denied"),
)
_COMPILED = tuple((cause, re.compile(sign, re.IGNORECASE)) for cause, sign in _SIGNS)
_MODEL = re.compile(r"conversing with component|\b(?:openai|anthropic|bedrock|mistral)\b", re.IGNORECASE)
_DOWN = re.compile(
    r"\bstatus (?:code:? )?5\d\d\b|\berror code:? 5\d\d\b|unavailable"
    r"|connection (?:was cut|reset|refused)|broken pipe|unexpected eof",
    re.IGNORECASE,
)


def cause_of_code(code: str) -> Cause:
    """The cause of an error of ours."""
    return _OF_CODE.get(code, Cause.UNKNOWN)


def code_of(failure: Failure) -> str:
    """The code of an error of ours; empty for a failure that somebody else wrote."""
    return split_code(failure.message)[0] if failure.type in _OUR_TYPES else ""


def words_of(failure: Failure) -> str:
    """A failure as it is recorded: an error of ours as it was written down, any other after its type."""
    return failure.message if code_of(failure) else f"{failure.type}: {failure.message}"


def message_of(failure: Failure) -> str:
    """A failure for a person: an error of ours without its code, any other after its type."""
    return split_code(failure.message)[1] if code_of(failure) else words_of(failure)


def cause(failure: Failure) -> Cause:
    """The cause of one failure; of a nested one, the innermost that says anything."""
    inner = cause(failure.inner) if failure.inner else Cause.UNKNOWN
    return inner if inner is not Cause.UNKNOWN else _own(failure)


def cause_of(attempt: Attempt) -> Cause | None:
    """Why an attempt brought no result; None when it did, or may still."""
    if attempt.outcome is AttemptOutcome.LOST:
        return Cause.UNKNOWN
    return cause(attempt.failure) if attempt.failure else None


def timed_out(run: WorkflowRun) -> Iterator[tuple[Step, Attempt]]:
    """The attempts whose failure says that time was up."""
    for step in run.steps:
        yield from ((step, attempt) for attempt in step.attempts if cause_of(attempt) is Cause.TIMEOUT)


def _own(failure: Failure) -> Cause:
    if code := code_of(failure):
        return cause_of_code(code)
    kind, message = failure.type.rsplit(".", 1)[-1], failure.message
    if "timeout" in kind.lower():
        return Cause.TIMEOUT
    if kind in _REFUSALS:
        return Cause.REFUSED
    for found, sign in _COMPILED:
        if sign.search(message):
            return found
    if _DOWN.search(message):
        return Cause.PROVIDER_ERROR if _MODEL.search(message) else Cause.TOOL_ERROR
    return Cause.BUG if _BUG.fullmatch(kind) else Cause.UNKNOWN
