"""The errors that end a command, each one sentence with the remedy."""

from __future__ import annotations

import re
from typing import Any

from app.domain.errors import RefundAgentError, Unreachable

# Messages about wrong fields and options. The libraries' own messages name their types.

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
    "extra_forbidden": "is not a field of a ticket",
}


def what_is_wrong(field: str, fault: Any) -> str:
    """One of pydantic's errors as a phrase that follows the field's name, such as `is missing`."""
    kind, given = fault["type"], fault.get("input")
    if kind == "string_too_long":
        return f"is longer than {fault['ctx']['max_length']:,} characters"
    shown = f", not {given[:40]}" if field in ("amount", "currency") and isinstance(given, str) and given else ""
    if phrase := _BY_TYPE.get(kind):
        return phrase
    return f"{_BY_FIELD[field]}{shown}" if field in _BY_FIELD else str(fault["msg"]).removeprefix("Value error, ")


_REWORDING = (
    (re.compile(r"Value error, "), ""),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"must be \1 or more"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"must be \1 or less"),
    (re.compile(r"Input should be a valid integer.*"), "must be a whole number"),
    (re.compile(r"Input should be a valid number.*"), "must be a number"),
    (re.compile(r"Input should be "), "must be "),
)


def reword(message: str) -> str:
    """A message of pydantic or typer about an option, in plain words."""
    for pattern, wording in _REWORDING:
        message = pattern.sub(wording, message)
    return message


class AgentAway(Unreachable):
    """The agent does not answer, or says that it is unavailable; the same call may succeed later. `code` is the
    agent's own code if it gave one."""

    code = "agent_away"

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code or self.code


class OutcomeUnknown(AgentAway):
    """A request that changes something was sent and not answered: nobody knows whether it was carried out."""

    code = "outcome_unknown"


class AgentRefused(RefundAgentError):
    """The agent refused the request. `refusal` is the HTTP status, `code` the agent's code."""

    code = "agent_refused"
    title = "Refused by the agent"

    def __init__(self, message: str, *, refusal: int, code: str = "") -> None:
        super().__init__(message)
        self.refusal = refusal
        self.code = code or self.code


class NothingRecorded(RefundAgentError):
    """Nothing is recorded under the given id or tenant, which is probably misspelt."""

    code = "nothing_recorded"
    title = "Nothing recorded"


class NotUnderstood(RefundAgentError):
    """The answer has an unknown form: it comes from another program, or another version of the agent."""

    code = "not_understood"
    title = "Answer not understood"
