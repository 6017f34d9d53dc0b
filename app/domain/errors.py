"""What can go wrong, as one tree.

RefundAgentError
├── ConfigurationError          a file of ours is wrong; names file, line and remedy
├── BadTicket                   a ticket that cannot be accepted; names the field
├── Conflict                    another body under an id that is in use
├── TaskNotFound                no such task, or not one that the caller may see
├── NotWaiting                  a decision for a task that waits for none
│   └── TooLate                 somebody else, or the time limit, was first
├── AccessDenied                no token, a wrong one, or one without the role or tenant
├── Unreachable                 Dapr, a model or an internal system does not answer: worth a retry
│   ├── LedgerGone              the ledger's file was deleted, moved or replaced while it was in use
│   ├── LedgerUnavailable       the ledger's database cannot do what is asked now
│   ├── NotReady                this process can do no work at this moment, as a probe is told
│   ├── ModelUnavailable
│   └── SystemUnavailable
├── ModelBusy                   a call has to wait longer for its turn than a worker waits: its task pauses
├── StepSetAside                a step that has cost several workers their life; names task and step
├── StepOver                    an attempt at a step that has failed elsewhere meanwhile
├── StepFault                   a step whose code raised what it should not; names the place
├── StepOverdue                 a step that did not come back in its time
├── NotAsked                    a step that moves money, and that its task's own history does not ask for
├── HistoryTampered             a workflow's history is not what was signed; names the instance
├── RepeatedlyLost                 a step's answers were lost and probably billed, up to the policy's bound
├── ModelRefused                the provider refuses the request as such: a retry changes nothing
├── SystemRefused               an internal system refuses the request as such: a retry changes nothing
└── Refused                     an internal system answered, and said no: a retry changes nothing
    └── DecisionRefused         a person's decision that the books, or the task, do not allow

Every message holds the value, the id and the remedy; no message holds a customer's text or a secret.

Messages are for people and may be reworded with any version. What a program goes by is the `code`: each class has its
own, and an error whose cause is known carries that as its code. Where an error is written down (a journal row, a Dapr
history), its code is the first word: `no_answer_in_time: model component llm: ...`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum


class RefundAgentError(Exception):
    """The root. `code` is stable, in snake_case; `status` is the HTTP status at the edge, `title` its problem title;
    `passing` says whether the same may go well later, so that a workflow tries its step again."""

    code = "internal_error"
    passing = False
    status = 500
    title = "Internal error"

    @property
    def coded(self) -> str:
        """The message with its code as the first word, as it is written down."""
        return with_code(self.code, str(self))


def with_code(code: str, message: str) -> str:
    """A message as it is written down. `split_code` takes it apart again."""
    return f"{code}: {message}"


def split_code(text: str) -> tuple[str, str]:
    """Code and message of what was written down; an empty code where the text begins with none of ours."""
    code, colon, message = text.partition(": ")
    return (code, message) if colon and code in CODES else ("", text)


class ConfigurationError(RefundAgentError):
    """One of our own configuration files is wrong."""

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
    """The task does not wait for what was sent."""

    code = "not_waiting"
    status = 409
    title = "Task is not waiting for this"


class TooLate(NotWaiting):
    """The question that a decision answers was answered, or the task was over, before it came."""

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
    """Why a call of a model or of an internal system brought no answer, as far as it was told: the code of such an
    error, and the first word of the error in a failed row of the journal."""

    BREAKER_OPEN = "breaker_open"  # the sidecar refused to ask
    RATE_LIMIT = "rate_limit"  # 429
    STATUS = "status"  # the provider answered with another 4xx or 5xx, which no provider bills
    MODEL_REFUSED = "model_refused"  # with a 4xx that stays, however often it is asked
    REFUSED_CONNECTION = "refused_connection"  # nobody listens at the provider's address
    SIDECAR_GONE = "sidecar_gone"  # no sidecar took the call
    NO_ANSWER_IN_TIME = "no_answer_in_time"  # or a proxy before the provider gave up: 408, 504, 524
    CUT = "cut"  # the connection broke, or was never there (a proxy says 502): the two cannot be told apart
    MALFORMED = "malformed"  # an answer came and could not be read
    TOO_LARGE = "too_large"  # an answer came that is larger than what the sidecar hands over
    OTHER = "model_unavailable"

    @property
    def no_model_worked(self) -> bool:
        """Whether a request that failed so was never worked on, so that it costs nothing."""
        return self in _NO_MODEL_WORKED

    @classmethod
    def told(cls, error: str) -> FailureCause:
        """The cause that an error begins with; `OTHER` when it names none."""
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
    """Why the ledger's database cannot do what is asked."""

    DISK_FULL = "ledger_disk_full"
    READ_ONLY = "ledger_read_only"
    LOCKED = "ledger_locked"
    DISK_FAILS = "ledger_disk_fails"
    DAMAGED = "ledger_damaged"
    AWAY = "ledger_away"
    CROWDED = "ledger_crowded"  # no connection is left


class Unreachable(RefundAgentError):
    """Something outside does not answer now; the same call may succeed later. A `cause` that is known is its code."""

    code = "unreachable"
    passing = True
    status = 503
    title = "Temporarily unreachable"

    def __init__(self, message: str, *, cause: FailureCause | None = None) -> None:
        super().__init__(message)
        if cause is not None:
            self.code = cause.value


class NotReady(Unreachable):
    """This process can do no work at this moment."""

    code = "not_ready"
    title = "Not ready"


class LedgerGone(Unreachable):
    """The ledger's file is not the one that was opened: what is written to it would be lost."""

    code = "ledger_gone"
    title = "Ledger gone"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the ledger {path} was deleted, moved or replaced while the agent runs, so nothing is accepted; put it "
            "back and restart the agent, or restart it with what is there and run `refund-agent ledger rebuild`"
        )


class LedgerUnavailable(Unreachable):
    """The ledger's database cannot do what is asked now; its code is the trouble."""

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
    """A call has to wait longer for its turn than a worker waits. No failure: its task pauses and comes back."""

    code = "model_busy"
    passing = True
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
    """A step that has cost several workers their life is not begun again."""

    code = "step_set_aside"
    title = "Step set aside"

    def __init__(self, task_id: str, step: str, dead: int) -> None:
        super().__init__(
            f"step {step} is set aside: {dead} workers in a row went away while they worked at it; find out why "
            f"(the workers' exit codes, memory, logs), mend it, then `task resume {task_id}`"
        )


class StepOver(RefundAgentError):
    """An attempt that has failed elsewhere is not begun again: the workflow has taken its failure."""

    code = "step_over"
    passing = True
    title = "Step over"


class StepFault(RefundAgentError):
    """A fault of our own code in a step. `where` says the error's type and place; its values may be a customer's."""

    code = "step_fault"
    title = "Fault in a step"

    def __init__(self, step: str, where: str) -> None:
        super().__init__(f"step {step}: {where}; mend it, then `task resume`")


class StepOverdue(RefundAgentError):
    """A step that did not come back in its time was ended. `why` says how long that was, and where it stood."""

    code = "step_overdue"
    title = "Step overdue"

    def __init__(self, task_id: str, step: str, why: str) -> None:
        super().__init__(f"step {step} is ended: {why}; mend it, then `task resume {task_id}`")


class NotAsked(RefundAgentError):
    """A step that moves money is worked for no one but the task whose history asks for it."""

    code = "not_asked_for"
    title = "Not asked for"

    def __init__(self, step: str, instance_id: str, task_id: str) -> None:
        super().__init__(
            f"step {step} was asked for {task_id} by instance {instance_id}, and the history of the task does not ask "
            f"for it in these words; nothing was posted. Look for who did: `record {task_id}`, the sidecars' logs, and "
            f"the apps that share this namespace (WorkflowAccessPolicy; Dapr 1.18.6 or later)"
        )


class HistoryTampered(RefundAgentError):
    """The history of `instance_id` cannot be trusted: it does not verify. `words` is what Dapr says about it;
    `given_up_at` when it ended the run for that, if it did."""

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


# The 4xx that ask for patience: the same request may succeed later.
_PATIENCE = frozenset({408, 409, 425, 429})


def is_final(status: int) -> bool:
    """Whether an HTTP status says that the same request will be refused again."""
    return 400 <= status < 500 and status not in _PATIENCE


class ModelRefused(RefundAgentError):
    """The provider refuses the request as such (key, model, form); only a person can mend that."""

    code = FailureCause.MODEL_REFUSED.value
    status = 502
    title = "Refused by the model provider"


class RepeatedlyLost(RefundAgentError):
    """A step has lost as many answers that were probably billed as the policy allows."""

    code = "answers_lost"
    status = 502
    title = "Model calls kept failing"

    def __init__(self, component: str, times: int, cause: str) -> None:
        super().__init__(
            f"model component {component}: {times} calls brought no result, each probably billed (the last: "
            f"{cause.replace('_', ' ')}); no more than that by retries.billed_attempts in config/policy.yaml: find out "
            "why no answer arrives (time-out in resiliency/llm.yaml, length of the answer), then `task resume`"
        )


class SystemRefused(RefundAgentError):
    """An internal system does not take the request as such (address, right, form); only a person can mend that."""

    code = "system_refused"
    status = 502
    title = "Request refused by an internal system"


class Refused(RefundAgentError):
    """An internal system answered and refused; `reason` is the code of its own that it gave for that."""

    code = "refused"
    status = 422
    title = "Refused by an internal system"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecisionRefused(Refused):
    """A decision that the books, or the task, do not allow; the task waits as before."""

    code = "decision_refused"
    title = "Decision refused"


def error_classes(kind: type[RefundAgentError] = RefundAgentError) -> Iterator[type[RefundAgentError]]:
    """A class of the tree and all that have been made of it."""
    yield kind
    for below in kind.__subclasses__():
        yield from error_classes(below)


# Those of this module, which are all that a step can raise; the edges (API, command line, bills) have their own.
CODES = frozenset({kind.code for kind in error_classes()} | set(FailureCause) | set(LedgerTrouble))
