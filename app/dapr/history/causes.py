"""What a failure in a history comes from, as far as its type and message tell. Pure.

A message is written by whoever failed: this agent's gateway and systems, any library, Dapr. The first sign that is
found decides; what has none is `unknown`, not the nearest guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

from app.dapr.history.model import Attempt, AttemptOutcome, Failure, Step, WorkflowRun


class Cause(StrEnum):
    """Where a failure comes from."""

    PROVIDER_ERROR = "provider_error"  # the model's provider answers with an error, nonsense, or not at all
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    BREAKER_OPEN = "breaker_open"  # nothing was asked: a circuit breaker refused
    TOOL_ERROR = "tool_error"  # a system behind a tool is down or answers with an error
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


# Python's own, pydantic's, and the SDK's.
_BUG = re.compile(
    r"(?:Arithmetic|Assertion|Attribute|Import|Index|Key|Lookup|ModuleNotFound|Name|NotImplemented|Overflow|Recursion"
    r"|Syntax|Type|UnboundLocal|UnicodeDecode|UnicodeEncode|Validation|Value|ZeroDivision"
    r"|NonDeterminism|WorkflowState|OrchestratorNotRegistered|ActivityNotRegistered)Error"
)
_REFUSALS = frozenset({"WorkflowAccessPolicyDenied", "WorkflowInstanceAlreadyExists", "ModelRefused", "Refused"})
# A breaker that lets one probe through says "too many requests", as a rate limit does: the breaker's sign comes first.
_SIGNS = (
    (Cause.BUG, r"^step \w+: \w+ in \S+ \(line \d+\)"),
    (Cause.BREAKER_OPEN, r"circuit ?breaker|conversing with component \S+: too many requests"),
    (Cause.RATE_LIMIT, r"\b429\b|too many requests|rate.?limit|\bquota\b"),
    (Cause.TIMEOUT, r"no answer in time|time[sd]?[ -]?out|deadline|\bstatus (?:code:? )?(?:408|504)\b"),
    (Cause.SIDECAR_GONE, r"sidecar is not there|(?:Connect|OSError)\w* at the sidecar|failed to connect to all"),
    (Cause.REFUSED, r"\brefuse[sd]\b(?<!connection refused)|\bstatus (?:code:? )?4(?:0[0134]|22)\b|permission.?denied"),
)
_COMPILED = tuple((cause, re.compile(sign, re.IGNORECASE)) for cause, sign in _SIGNS)
_MODEL = re.compile(r"model component|conversing with component|\b(?:openai|anthropic|bedrock|mistral)\b", re.I)
_DOWN = re.compile(
    r"\bstatus (?:code:? )?5\d\d\b|\berror code:? 5\d\d\b|(?:tried|asked) again later|at the sidecar|unavailable"
    r"|connection (?:was cut|reset|refused)|broken pipe|unexpected eof",
    re.IGNORECASE,
)


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
    by_type = {"ModelUnavailable": Cause.PROVIDER_ERROR, "SystemUnavailable": Cause.TOOL_ERROR}
    return by_type.get(kind, Cause.BUG if _BUG.fullmatch(kind) else Cause.UNKNOWN)
