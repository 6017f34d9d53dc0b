"""What can end a command: each is one sentence with the remedy."""

from __future__ import annotations

from app.domain.errors import RefundAgentError, Unreachable


class AgentAway(Unreachable):
    """The agent does not answer, or says that it cannot now: the same call may succeed later."""


class OutcomeUnknown(AgentAway):
    """A request that may have changed something was sent, and no answer came: it was carried out, or not."""


class AgentRefused(RefundAgentError):
    """The agent answered and said no. `refusal` is the HTTP status."""

    title = "Refused by the agent"

    def __init__(self, message: str, *, refusal: int) -> None:
        super().__init__(message)
        self.refusal = refusal


class NothingRecorded(RefundAgentError):
    """What was asked for is not in the record at all: more likely a slip of the pen than an answer."""

    title = "Nothing recorded"


class NotUnderstood(RefundAgentError):
    """What answered is not this product's agent, or another version of it."""

    title = "Answer not understood"
