"""The agent's errors, as one tree.

RefundAgentError
├── ConfigurationError          a configuration file is wrong; names file, line and remedy
├── BadTicket                   a ticket cannot be accepted; names the field
├── Conflict                    the ticket's id is in use with another body
├── TaskNotFound                there is no such task, or the caller may not see it
├── NotWaiting                  a decision for a task that waits for none
│   └── TooLate                 another decision, or the time limit, came first
├── AccessDenied                the token is missing, wrong, or lacks the role or tenant
├── Unreachable                 Dapr, a model or an internal system does not answer: worth a retry
│   ├── LedgerGone              the ledger's file was deleted, moved or replaced while in use
│   ├── LedgerUnavailable       the ledger's database cannot carry out the request now
│   ├── NotReady                this process cannot work now, as a probe reports
│   ├── ModelUnavailable
│   └── SystemUnavailable
├── ModelBusy                   a call would wait longer than a worker may wait: its task pauses
├── StepSetAside                a step has killed several workers; names task and step
├── AttemptAlreadyFailed        an attempt at a step has meanwhile been recorded as failed
├── StepFault                   a step's code raised an unexpected error; names the place
├── StepOverdue                 a step exceeded its time limit
├── StepNotInHistory            a step that moves money does not appear in its task's history
├── HistoryTampered             a workflow's history does not match its signature; names the instance
├── AnswersLost                 a step lost as many probably billed answers as the policy allows
├── ModelRefused                the provider refuses the request: a retry changes nothing
├── SystemRefused               an internal system refuses the form of the request: a retry changes nothing
└── Refused                     an internal system refuses the operation: a retry changes nothing
    └── DecisionRefused         the books, or the task, do not allow a person's decision

Every message contains the value, the id and the remedy; no message contains a customer's text or a secret.

Messages are for people and may be reworded with any version. Programs use the `code`: each class has one, and an error
with a known cause carries the code of the cause instead. Where an error is stored (journal, Dapr history), its code is
the first word: `no_answer_in_time: model component llm: ...`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum


class RefundAgentError(Exception):
    """The root of the tree. `code` is stable and in snake_case; `status` is the API's HTTP status, `title` the title of
    its problem document; `retryable` says that the workflow should retry, since the same request may succeed later."""

    code = "internal_error"
    retryable = False
    status = 500
    title = "Internal error"

    @property
    def stored_text(self) -> str:
        """The message with its code as the first word, as it is stored."""
        return with_code(self.code, str(self))


def with_code(code: str, message: str) -> str:
    """A message in its stored form; `split_code` is the inverse."""
    return f"{code}: {message}"


def split_code(text: str) -> tuple[str, str]:
    """Splits a stored error into code and message; the code is empty if the text begins with none of `CODES`."""
    code, colon, message = text.partition(": ")
    return (code, message) if colon and code in CODES else ("", text)


class ConfigurationError(RefundAgentError):
    """A configuration file is wrong."""

    code = "configuration_error"
    title = "Configuration error"


class BadTicket(RefundAgentError):
    """A ticket that cannot be accepted as it is."""

    code = "bad_ticket"
    status = 422
    title = "Ticket not acceptable"


class Conflict(RefundAgentError):
    """The id is in use by a ticket with another body."""

    code = "ticket_conflict"
    status = 409
    title = "Ticket id already used with another body"


class TaskNotFound(RefundAgentError):
    """There is no such task, or the caller may not see it."""

    code = "task_not_found"
    status = 404
    title = "Task not found"


class NotWaiting(RefundAgentError):
    """The task does not wait for the event that was sent."""

    code = "not_waiting"
    status = 409
    title = "Task is not waiting for this"


class TooLate(NotWaiting):
    """The decision came after its question was answered, or after the task had ended."""

    code = "too_late"
    title = "Decided before"


class AccessDenied(RefundAgentError):
    """The caller may not do this. `status` is 401 without a valid token, else 403."""

    code = "access_denied"
    title = "Access denied"

    def __init__(self, message: str, *, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


class FailureCause(StrEnum):
    """Why a call of a model or of an internal system failed: the code of the error, and so the first word of the error
    in a failed row of the journal."""

    BREAKER_OPEN = "breaker_open"  # the sidecar's breaker blocked the request
    RATE_LIMIT = "rate_limit"  # 429
    STATUS = "status"  # the provider answered with another 4xx or 5xx, which no provider bills
    MODEL_REFUSED = "model_refused"  # a 4xx that a retry does not change
    REFUSED_CONNECTION = "refused_connection"  # nothing listens at the provider's address
    SIDECAR_GONE = "sidecar_gone"  # no sidecar accepted the call
    NO_ANSWER_IN_TIME = "no_answer_in_time"  # or a proxy before the provider timed out: 408, 504, 524
    CONNECTION_LOST = "cut"  # the connection broke, or a proxy answered 502: the two are indistinguishable
    MALFORMED = "malformed"  # an answer arrived and could not be read
    TOO_LARGE = "too_large"  # an answer arrived that is larger than the sidecar passes on
    OTHER = "model_unavailable"

    @property
    def no_model_worked(self) -> bool:
        """Whether no model can have worked on a request with this failure, so that it costs nothing."""
        return self in _NO_MODEL_WORKED

    @classmethod
    def from_error(cls, error: str) -> FailureCause:
        """The cause by the code of a stored error; `OTHER` if the error has no such code."""
        code, _ = split_code(error)
        return cls(code) if code in frozenset(cls) else cls.OTHER


_NO_MODEL_WORKED = frozenset(
    {
        FailureCause.BREAKER_OPEN,
        FailureCause.RATE_LIMIT,
        FailureCause.STATUS,
        FailureCause.MODEL_REFUSED,
        FailureCause.REFUSED_CONNECTION,
        FailureCause.SIDECAR_GONE,
    }
)


class LedgerTrouble(StrEnum):
    """Why the ledger's database cannot carry out a request."""

    DISK_FULL = "ledger_disk_full"
    READ_ONLY = "ledger_read_only"
    LOCKED = "ledger_locked"
    DISK_FAILS = "ledger_disk_fails"
    DAMAGED = "ledger_damaged"
    UNREACHABLE = "ledger_away"
    NO_CONNECTION_LEFT = "ledger_crowded"  # no connection is left


class Unreachable(RefundAgentError):
    """An external service does not answer now; the same call may succeed later. The `cause`, if known, gives the
    code."""

    code = "unreachable"
    retryable = True
    status = 503
    title = "Temporarily unreachable"

    def __init__(self, message: str, *, cause: FailureCause | None = None) -> None:
        super().__init__(message)
        if cause is not None:
            self.code = cause.value


class NotReady(Unreachable):
    """This process cannot work now."""

    code = "not_ready"
    title = "Not ready"


class LedgerGone(Unreachable):
    """The ledger's file is no longer the opened one: writes to it would be lost."""

    code = "ledger_gone"
    title = "Ledger gone"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the ledger {path} was deleted, moved or replaced while the agent runs, so nothing is accepted; put it "
            "back and restart the agent, or restart it with the present file and run `refund-agent ledger rebuild`"
        )


class LedgerUnavailable(Unreachable):
    """The ledger's database cannot carry out the request now; the code is the kind of trouble."""

    code = "ledger_unavailable"
    title = "Ledger unavailable"

    def __init__(self, trouble: LedgerTrouble, message: str) -> None:
        super().__init__(message)
        self.code = trouble.value


class ModelUnavailable(Unreachable):
    """The model provider does not answer, or its circuit breaker is open."""

    code = FailureCause.OTHER.value
    retry_after: float | None = None  # seconds, where the provider said so


class ModelBusy(RefundAgentError):
    """A call has to wait longer for its turn than a worker waits. Not a failure: its task pauses and resumes."""

    code = "model_busy"
    retryable = True
    title = "Model busy"

    def __init__(self, component: str, seconds: float) -> None:
        """`seconds`: how long the task should pause."""
        super().__init__(
            f"model component {component}: the queue before it is longer than the policy allows a call to wait; "
            f"the task comes back in {seconds:.0f} s"
        )
        self.seconds = seconds


class SystemUnavailable(Unreachable):
    """An internal system does not answer, or its circuit breaker is open."""

    code = "system_unavailable"


class StepSetAside(RefundAgentError):
    """A step has killed several workers, so it is not started again."""

    code = "step_set_aside"
    title = "Step set aside"

    def __init__(self, task_id: str, step: str, dead: int) -> None:
        super().__init__(
            f"step {step} is set aside: {dead} workers in a row died at it; find the cause (the workers' exit codes, "
            f"memory, logs), correct it, then `task resume {task_id}`"
        )


class AttemptAlreadyFailed(RefundAgentError):
    """The workflow has already recorded the attempt as failed, so it is not started again."""

    code = "step_over"
    retryable = True
    title = "Step over"


class StepFault(RefundAgentError):
    """An unexpected error in a step's code. `where` is its type and place; its message may quote a customer."""

    code = "step_fault"
    title = "Fault in a step"

    def __init__(self, step: str, where: str) -> None:
        super().__init__(f"step {step}: {where}; correct it, then `task resume`")


class StepOverdue(RefundAgentError):
    """A step exceeded its time limit and was ended. `why` says the limit, and where the code was."""

    code = "step_overdue"
    title = "Step overdue"

    def __init__(self, task_id: str, step: str, why: str) -> None:
        super().__init__(f"step {step} is ended: {why}; correct the cause, then `task resume {task_id}`")


class StepNotInHistory(RefundAgentError):
    """A step that moves money was requested, but the history of its task does not contain the request."""

    code = "not_asked_for"
    title = "Not asked for"

    def __init__(self, step: str, instance_id: str, task_id: str) -> None:
        super().__init__(
            f"step {step} was asked for {task_id} by instance {instance_id}, but the history of the task does not "
            f"contain this request; nothing was posted. Find out who sent it: `record {task_id}`, the sidecars' logs, "
            f"and the apps that share this namespace (WorkflowAccessPolicy; Dapr 1.18.6 or later)"
        )


class HistoryTampered(RefundAgentError):
    """The history of `instance_id` does not verify, so it cannot be trusted. `words` is Dapr's message; `given_up_at`
    is when Dapr ended the run for it, else None."""

    code = "history_tampered"
    status = 409
    title = "Workflow history does not verify"

    def __init__(self, instance_id: str, words: str, given_up_at: datetime | None = None) -> None:
        super().__init__(
            f"workflow instance {instance_id}: its history does not verify: {words}; "
            "count nothing from it, keep the state store as it is, and find out who wrote to it"
        )
        self.instance_id = instance_id
        self.words = words
        self.given_up_at = given_up_at


# The 4xx after which the same request may succeed later.
_PASSING = frozenset({408, 409, 425, 429})


def is_final(status: int) -> bool:
    """Whether an HTTP status means that the same request will be refused again."""
    return 400 <= status < 500 and status not in _PASSING


class ModelRefused(RefundAgentError):
    """The provider refuses the request for its key, model or form; only a person can correct that."""

    code = FailureCause.MODEL_REFUSED.value
    status = 502
    title = "Refused by the model provider"


class AnswersLost(RefundAgentError):
    """A step has lost as many probably billed answers as the policy allows."""

    code = "answers_lost"
    status = 502
    title = "Model calls kept failing"

    def __init__(self, component: str, times: int, cause: str) -> None:
        super().__init__(
            f"model component {component}: {times} calls brought no result, each probably billed (the last: "
            f"{cause.replace('_', ' ')}), which is the limit, retries.billed_attempts in config/policy.yaml: find out "
            "why no answer arrives (time-out in resiliency/llm.yaml, length of the answer), then `task resume`"
        )


class SystemRefused(RefundAgentError):
    """An internal system refuses the request for its address, rights or form; only a person can correct that."""

    code = "system_refused"
    status = 502
    title = "Request refused by an internal system"


class Refused(RefundAgentError):
    """An internal system refused the operation; `reason` is that system's code."""

    code = "refused"
    status = 422
    title = "Refused by an internal system"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecisionRefused(Refused):
    """The books, or the task, do not allow the decision; the task still waits."""

    code = "decision_refused"
    title = "Decision refused"


def error_classes(kind: type[RefundAgentError] = RefundAgentError) -> Iterator[type[RefundAgentError]]:
    """Yields a class of the tree and all its subclasses."""
    yield kind
    for subclass in kind.__subclasses__():
        yield from error_classes(subclass)


# The codes of this module, which are all that a step can raise. API, command line and bills have further ones.
CODES = frozenset({kind.code for kind in error_classes()} | set(FailureCause) | set(LedgerTrouble))
