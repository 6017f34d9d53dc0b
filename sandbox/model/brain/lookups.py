"""What the draft's lookups brought back so far, read from the conversation. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.model.exchange import Message

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
    """The last answer of each lookup; an error is the code that came instead."""

    order: Order | None = None
    order_error: str | None = None
    policy: Policy | None = None
    policy_error: str | None = None


def read_lookups(messages: Sequence[Message]) -> Lookups:
    """Reads every tool result; a result that cannot be read counts as the error `unreadable`."""
    tools = {call.id: call.name for message in messages for call in message.tool_calls}
    results = {
        tools.get(message.tool_call_id, ""): _object(message.text) for message in messages if message.role == "tool"
    }
    order, order_error = _read(Order, results.get(ORDER_TOOL), "order")
    policy, policy_error = _read(Policy, results.get(POLICY_TOOL), "policy")
    return Lookups(order, order_error, policy, policy_error)


def _object(text: str) -> Mapping[str, Any]:
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
