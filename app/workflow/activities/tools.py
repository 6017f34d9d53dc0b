"""The tools of the drafting model: what the model is offered, the checks on what it requests, and the two activities.

Names, descriptions and JSON schemas have the form that dapr-agents gives to a tool. A test compares them with what
dapr-agents makes of the same arguments; it is not imported here, since that would add two seconds to every start of the
worker, while interrupted tasks wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dapr.ext.workflow import WorkflowActivityContext
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.domain.errors import Refused
from app.domain.models import REFUNDABLE, Category, Frozen, Reference
from app.domain.orders import Order, RefundPolicy
from app.llm.conversation import ToolDefinition, ToolRequest
from app.llm.json_answer import InvalidAnswer
from app.workflow.activities.services import Activity, Services

ToolName = Literal["lookup_order", "lookup_refund_policy"]
RefundableCategory = Literal["damaged", "not_received", "wrong_item", "changed_mind", "double_charge", "cancellation"]
assert set(get_args(RefundableCategory)) == {category.value for category in REFUNDABLE}  # noqa: S101 - one list, two forms

MAX_CALLS_A_TURN = 4


class OrderArguments(BaseModel):
    """Arguments of lookup_order."""

    model_config = ConfigDict(extra="forbid")
    order_id: Reference = Field(description="The order's number, for example AC-10442.")


class PolicyArguments(BaseModel):
    """Arguments of lookup_refund_policy."""

    model_config = ConfigDict(extra="forbid")
    category: RefundableCategory = Field(description="The ticket's category.")


@dataclass(frozen=True)
class Tool:
    """One tool; `arguments` validates the model's arguments."""

    name: ToolName
    description: str
    arguments: type[BaseModel]


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="lookup_order",
            description="The customer's order: status, days since delivery, items, prices, what is refundable.",
            arguments=OrderArguments,
        ),
        Tool(
            name="lookup_refund_policy",
            description="The shop's refund policy for one category: window in days, percent, conditions.",
            arguments=PolicyArguments,
        ),
    )
}


class ToolCall(Frozen):
    """A tool call that passed validation; `argument` is its only one."""

    id: str
    tool: ToolName
    argument: Reference


def definitions() -> tuple[ToolDefinition, ...]:
    """The tools as they are offered to the model."""
    return tuple(ToolDefinition(tool.name, tool.description, _schema(tool.arguments)) for tool in TOOLS.values())


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without the titles that pydantic makes of names: they add tokens to each call and say nothing."""
    schema = arguments.model_json_schema()
    properties = {name: _untitled(property_) for name, property_ in schema["properties"].items()}
    return _untitled(schema) | {"properties": properties}


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "title"}


def check_requests(requests: tuple[ToolRequest, ...], turn: int) -> tuple[ToolCall, ...]:
    """The model's tool requests as valid calls, with ids that we give them. Raises InvalidAnswer for more requests than
    `MAX_CALLS_A_TURN`, an unknown tool, or arguments that do not fit its schema."""
    if len(requests) > MAX_CALLS_A_TURN:
        raise InvalidAnswer(f"it asks for {len(requests)} tools at once, more than {MAX_CALLS_A_TURN}")
    return tuple(_call(request, f"call_{turn}_{number}") for number, request in enumerate(requests, start=1))


def _call(request: ToolRequest, call_id: str) -> ToolCall:
    tool = TOOLS.get(request.name)
    if tool is None:
        raise InvalidAnswer(f"there is no such tool; there are {', '.join(TOOLS)}")
    try:
        arguments = tool.arguments.model_validate(json.loads(request.arguments or "{}"))
    except (ValueError, RecursionError, ValidationError):
        raise InvalidAnswer(f"the arguments of {tool.name} do not fit its schema") from None
    (argument,) = arguments.model_dump().values()
    return ToolCall(id=call_id, tool=tool.name, argument=argument)


# The activities that execute the tools: they fetch the order and the refund policy from the internal systems.


class OrderInput(Frozen):
    """The order, and the ticket it is looked up for. Another customer's order is answered as unknown."""

    tenant: str
    ticket_id: str
    customer_id: str
    order_id: str


class OrderOutput(Frozen):
    """The order, or the code of why there is none."""

    order: Order | None
    problem: str | None


class PolicyInput(Frozen):
    """The category whose refund policy is looked up."""

    tenant: str
    category: Category


class PolicyOutput(Frozen):
    """The refund policy, or the code of why there is none."""

    policy: RefundPolicy | None
    problem: str | None


def lookup_order(services: Services) -> Activity:
    """Makes the activity."""

    async def lookup_order(_context: WorkflowActivityContext, question: OrderInput) -> OrderOutput:
        answer, problem = await _get(services, "orders", question)
        return OrderOutput(order=Order.model_validate(answer["order"]) if answer else None, problem=problem)

    return lookup_order


def lookup_refund_policy(services: Services) -> Activity:
    """Makes the activity."""

    async def lookup_refund_policy(_context: WorkflowActivityContext, question: PolicyInput) -> PolicyOutput:
        answer, problem = await _get(services, "policies", question)
        return PolicyOutput(policy=RefundPolicy.model_validate(answer["policy"]) if answer else None, problem=problem)

    return lookup_refund_policy


async def _get(services: Services, system: str, question: Frozen) -> tuple[dict[str, Any] | None, str | None]:
    """The system's answer, or None and the code of its refusal."""
    try:
        return await services.systems.ask(system, "get", question.model_dump(mode="json")), None
    except Refused as refusal:
        return None, refusal.reason
