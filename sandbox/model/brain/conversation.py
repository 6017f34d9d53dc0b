"""Reads the agent's prompt and the results of earlier lookups from the conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.model.exchange import Message

OPENING, CLOSING = "<ticket>", "</ticket>"
_NONE = ("", "none", "null", "-")


@dataclass(frozen=True)
class Prompt:
    """The parts of the agent's user message; absent ones are empty or None."""

    subject: str = ""
    text: str = ""
    order_id: str | None = None  # in the form, or as classified
    category: str = ""
    account: Mapping[str, Any] = field(default_factory=dict)


def read_prompt(message: str) -> Prompt:
    """Reads `Name: value` lines up to the ticket, and the ticket up to its last closing mark."""
    head, _, rest = message.partition(OPENING)
    text = rest.rpartition(CLOSING)[0] if CLOSING in rest else rest
    lines = (line.partition(":") for line in head.splitlines())
    headers = {name.strip().lower(): value.strip() for name, colon, value in lines if colon}
    order_id = headers.get("order in the form", headers.get("order", ""))
    return Prompt(
        subject=headers.get("subject", ""),
        text=text.strip(),
        order_id=None if order_id.lower() in _NONE else order_id,
        category=headers.get("category", "").lower(),
        account=_object(headers.get("account", "")),
    )


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


ORDER_TOOL = "lookup_order"
POLICY_TOOL = "lookup_refund_policy"
T = TypeVar("T", bound=BaseModel)


class Item(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(frozen=True)
    name: str
    quantity: int
    unit_price: Decimal


class Order(BaseModel):
    """An order as the lookup shows it."""

    model_config = ConfigDict(frozen=True)
    order_id: str
    status: str
    placed_days_ago: int
    delivered_days_ago: int | None = None
    currency: str
    total: Decimal
    charged: Decimal
    refundable: Decimal
    items: tuple[Item, ...] = ()


class Policy(BaseModel):
    """A refund policy as the lookup shows it."""

    model_config = ConfigDict(frozen=True)
    category: str
    window_days: int
    counted_from: str
    refund_percent: int
    text: str = ""


@dataclass(frozen=True)
class Lookups:
    """The last result of each lookup, or the code of its error."""

    order: Order | None = None
    order_error: str | None = None
    policy: Policy | None = None
    policy_error: str | None = None


def read_lookups(messages: Sequence[Message]) -> Lookups:
    """Reads every tool result; a result that cannot be read counts as the error `unreadable`."""
    tools = {call.id: call.name for message in messages for call in message.tool_calls}
    results = {
        tools.get(message.tool_call_id, ""): _result(message.text) for message in messages if message.role == "tool"
    }
    order, order_error = _read(Order, results.get(ORDER_TOOL), "order")
    policy, policy_error = _read(Policy, results.get(POLICY_TOOL), "policy")
    return Lookups(order, order_error, policy, policy_error)


def _result(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {"error": "unreadable"}
    return value if isinstance(value, dict) else {"error": "unreadable"}


def _read(kind: type[T], result: Mapping[str, Any] | None, name: str) -> tuple[T | None, str | None]:
    if result is None:
        return None, None
    if "error" in result:
        return None, str(result["error"])
    try:
        return kind.model_validate(result.get(name, result)), None
    except ValidationError:
        return None, "unreadable"
