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
│   ├── NotReady                this process can do no work at this moment, as a probe is told
│   ├── ModelUnavailable
│   └── SystemUnavailable
├── StepSetAside                a step that has cost several workers their life; names task and step
├── StepOver                    an attempt at a step that has failed elsewhere meanwhile
├── NotAsked                    a step that moves money, and that its task's own history does not ask for
├── HistoryTampered             a workflow's history is not what was signed; names the instance
├── AskedInVain                 a step's answers were lost and probably billed, up to the policy's bound
├── ModelRefused                the provider refuses the request as such: a retry changes nothing
├── SystemRefused               an internal system refuses the request as such: a retry changes nothing
└── Refused                     an internal system answered, and said no: a retry changes nothing
    └── DecisionRefused         a person's decision that the books, or the task, do not allow

Every message holds the value, the id and the remedy; no message holds a customer's text or a secret.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum


class RefundAgentError(Exception):
    """The root. `status` is the HTTP status at the edge, `title` its problem title."""

    status = 500
    title = "Internal error"


class ConfigurationError(RefundAgentError):
    """One of our own configuration files is wrong."""

    title = "Configuration error"


class BadTicket(RefundAgentError):
    """A ticket that cannot be accepted as it is."""

    status = 422
    title = "Ticket not acceptable"


class Conflict(RefundAgentError):
    """The id is in use by a ticket with another body."""

    status = 409
    title = "Ticket id already used with another body"


class TaskNotFound(RefundAgentError):
    """There is no such task, or the caller may not see it."""

    status = 404
    title = "Task not found"


class NotWaiting(RefundAgentError):
    """The task does not wait for what was sent."""

    status = 409
    title = "Task is not waiting for this"


class TooLate(NotWaiting):
    """The question that a decision answers was answered, or the task was over, before it came."""

    title = "Decided before"


class AccessDenied(RefundAgentError):
    """The caller may not do this. `status` is 401 without a valid token, else 403."""

    title = "Access denied"

    def __init__(self, message: str, *, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(RefundAgentError):
    """Something outside does not answer now; the same call may succeed later."""

    status = 503
    title = "Temporarily unreachable"


class NotReady(Unreachable):
    """This process can do no work at this moment."""

    title = "Not ready"


class LedgerGone(Unreachable):
    """The ledger's file is not the one that was opened: what is written to it would be lost."""

    title = "Ledger gone"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the ledger {path} was deleted, moved or replaced while the agent runs, so nothing is accepted; put it "
            "back and restart the agent, or restart it with what is there and run `refund-agent ledger rebuild`"
        )


class LedgerUnavailable(Unreachable):
    """The ledger's database cannot do what is asked now; `code` says why: `disk_full`, `read_only`, `locked`, `disk`,
    `damaged`, `away`, `crowded`."""

    title = "Ledger unavailable"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FailureCause(StrEnum):
    """Why a model call brought no answer, as far as it was told. Leads the error of a failed row of the journal."""

    BREAKER_OPEN = "breaker_open"  # the sidecar refused to ask
    STATUS = "status"  # the provider answered with a 4xx or 5xx, which no provider bills
    REFUSED_CONNECTION = "refused_connection"  # nobody listens at the provider's address
    SIDECAR_GONE = "sidecar_gone"  # no sidecar took the call
    NO_ANSWER_IN_TIME = "no_answer_in_time"  # or a proxy before the provider gave up: 408, 502, 504, 524
    CUT = "cut"  # the connection broke, or was never there: the two cannot be told apart
    MALFORMED = "malformed"  # an answer came and could not be read
    TOO_LARGE = "too_large"  # an answer came that is larger than what the sidecar hands over
    OTHER = "other"

    @property
    def no_model_worked(self) -> bool:
        """Whether a request that failed so was never worked on, so that it costs nothing."""
        return self in _NO_MODEL_WORKED

    def tell(self, message: str) -> str:
        """The message with its cause as the first word."""
        return f"{self.value}: {message}"

    @classmethod
    def told(cls, error: str) -> FailureCause:
        """The cause that an error begins with; `other` when it names none."""
        word = error.partition(":")[0]
        return cls(word) if word in frozenset(cls) else cls.OTHER


_NO_MODEL_WORKED = frozenset(
    {
        FailureCause.BREAKER_OPEN,
        FailureCause.STATUS,
        FailureCause.REFUSED_CONNECTION,
        FailureCause.SIDECAR_GONE,
    }
)


class ModelUnavailable(Unreachable):
    """The model provider does not answer, or its circuit breaker is open; `cause` says which."""

    def __init__(self, message: str, *, cause: FailureCause = FailureCause.OTHER) -> None:
        super().__init__(message)
        self.cause = cause


class SystemUnavailable(Unreachable):
    """An internal system does not answer, or its circuit breaker is open."""


class StepSetAside(RefundAgentError):
    """A step that has cost several workers their life is not begun again."""

    title = "Step set aside"

    def __init__(self, task_id: str, step: str, dead: int) -> None:
        super().__init__(
            f"step {step} is set aside: {dead} workers in a row went away while they worked at it; find out why "
            f"(the workers' exit codes, memory, logs), mend it, then `task resume {task_id}`"
        )


class StepOver(RefundAgentError):
    """An attempt that has failed elsewhere is not begun again: the workflow has taken its failure."""

    title = "Step over"


class NotAsked(RefundAgentError):
    """A step that moves money is worked for no one but the task whose history asks for it."""

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

    status = 502
    title = "Refused by the model provider"
    cause = FailureCause.STATUS


class AskedInVain(RefundAgentError):
    """A step has lost as many answers that were probably billed as the policy allows."""

    status = 502
    title = "Model asked in vain"

    def __init__(self, component: str, times: int, cause: str) -> None:
        super().__init__(
            f"model component {component}: asked {times} times in vain, each time probably billed (the last: "
            f"{cause.replace('_', ' ')}); no more than that by retries.billed_attempts in config/policy.yaml: find out "
            "why no answer arrives (time-out in resiliency/llm.yaml, length of the answer), then `task resume`"
        )


class SystemRefused(RefundAgentError):
    """An internal system does not take the request as such (address, right, form); only a person can mend that."""

    status = 502
    title = "Request refused by an internal system"


class Refused(RefundAgentError):
    """An internal system answered and refused; `code` is its reason."""

    status = 422
    title = "Refused by an internal system"

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class DecisionRefused(Refused):
    """A decision that the books, or the task, do not allow; the task waits as before."""

    title = "Decision refused"
