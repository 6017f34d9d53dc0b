"""What can end a command: each is one sentence with the remedy."""

from __future__ import annotations

import re
from typing import Any

from app.domain.errors import RefundAgentError, Unreachable

# What is wrong with a field or an option, in words of our own: a library speaks of its types.

_BY_FIELD = {
    "tenant": "must be small letters, digits and -, 31 at most",
    "ticket_id": "must be letters, digits, dots, _ and -, 64 at most",
    "customer_id": "must be letters, digits, dots, _ and -, 64 at most",
    "order_id": "must be letters, digits, dots, _ and -, 64 at most",
    "amount": "must be an amount above zero with the decimal places of its currency, such as 12.30",
    "currency": "must be a currency's three capital letters, such as EUR",
}
_BY_TYPE = {
    "missing": "is missing",
    "string_type": "must be text",
    "extra_forbidden": "is no field of a ticket",
}


def what_is_wrong(field: str, fault: Any) -> str:
    """A fault as pydantic has it, as it follows on the field's name."""
    kind, given = fault["type"], fault.get("input")
    if kind == "string_too_long":
        return f"is longer than {fault['ctx']['max_length']:,} characters"
    shown = f", not {given[:40]}" if field in ("amount", "currency") and isinstance(given, str) and given else ""
    if said := _BY_TYPE.get(kind):
        return said
    return f"{_BY_FIELD[field]}{shown}" if field in _BY_FIELD else str(fault["msg"]).removeprefix("Value error, ")


_OPTIONS = (
    (re.compile(r"Value error, "), ""),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"must be \1 or more"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"must be \1 or less"),
    (re.compile(r"Input should be a valid integer.*"), "must be a whole number"),
    (re.compile(r"Input should be a valid number.*"), "must be a number"),
    (re.compile(r"Input should be "), "must be "),
)


def in_our_words(message: str) -> str:
    """What is wrong with an option, as a person would say it."""
    for theirs, ours in _OPTIONS:
        message = theirs.sub(ours, message)
    return message


class AgentAway(Unreachable):
    """The agent does not answer, or says that it cannot now: the same call may succeed later. `code`: what it said
    itself."""

    code = "agent_away"

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code or self.code


class OutcomeUnknown(AgentAway):
    """A request that may have changed something was sent, and no answer came: it was carried out, or not."""

    code = "outcome_unknown"


class AgentRefused(RefundAgentError):
    """The agent answered and said no. `refusal` is the HTTP status, `code` what the agent gave."""

    code = "agent_refused"
    title = "Refused by the agent"

    def __init__(self, message: str, *, refusal: int, code: str = "") -> None:
        super().__init__(message)
        self.refusal = refusal
        self.code = code or self.code


class NothingRecorded(RefundAgentError):
    """What was asked for is not in the record at all: more likely a slip of the pen than an answer."""

    code = "nothing_recorded"
    title = "Nothing recorded"


class NotUnderstood(RefundAgentError):
    """What answered is not this product's agent, or another version of it."""

    code = "not_understood"
    title = "Answer not understood"
