"""What the peer's steps say and conclude: requests, answers, guards. Pure; the product's own rules and words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import policy
from app.domain.models import (
    Action,
    Classification,
    Confidence,
    Currency,
    Draft,
    Frozen,
    Money,
    Outcome,
    Reference,
    Refund,
    Ticket,
)
from app.domain.orders import Account, Exposure, Order, RefundPolicy
from app.llm.conversation import ToolRequest
from app.llm.json_answer import json_object, validate
from app.workflow.activities import guards, letters, prompts, tools
from app.workflow.activities.services import case_key, letter_key, refund_key
from app.workflow.activities.tools import ToolCall

RULES = policy.load(Path(__file__).resolve().parents[3] / "config" / "policy.yaml")
MODEL = "sandbox-small"
Json = dict[str, Any]


class Unfit(Exception):
    """The answer is not what a benchmark's ticket leads to: the run is worth nothing."""


class Proposal(Frozen):
    """The model's final answer."""

    action: Action
    order_id: Reference | None = None
    amount: Money | None = None
    currency: Currency | None = None
    reason: str
    confidence: Confidence
    reply: str


@dataclass(frozen=True)
class Found:
    """One tool call with its result."""

    call: ToolCall
    order: Order | None = None
    policy: RefundPolicy | None = None


def classify_request(ticket: Ticket) -> Json:
    """Stage 1's request."""
    form = f"Subject: {ticket.subject}\nOrder in the form: {ticket.order_id or 'none'}"
    return _request(prompts.CLASSIFY, f"{form}\n{prompts.ticket_block(ticket.text)}")


def classification(answer: Json) -> Classification:
    """Stage 1's answer. Raises Nonsense."""
    return validate(Classification, json_object(_message(answer)["content"]))


def draft_request(ticket: Ticket, found: Classification, account: Account, lookups: tuple[Found, ...]) -> Json:
    """Stage 3's request, one turn."""
    lines = (
        f"Category: {found.category.value}",
        f"Order: {ticket.order_id or found.order_id or 'none'}",
        f"Account: {account.model_dump_json()}",
        f"Subject: {ticket.subject}",
        prompts.ticket_block(ticket.text),
    )
    request = _request(prompts.DRAFT, "\n".join(lines))
    request["messages"] += _exchange(lookups)
    return request | {"tools": _TOOLS, "tool_choice": "auto"}


def drafted(answer: Json, turn: int) -> Proposal | tuple[ToolCall, ...]:
    """Stage 3's answer: tools to call, or the proposal. Raises Nonsense."""
    message = _message(answer)
    asked = tuple(_tool_request(call) for call in message.get("tool_calls") or ())
    if asked:
        return tools.check_requests(asked, turn)
    return validate(Proposal, json_object(message["content"]))


def proposed(proposal: Proposal) -> Refund | None:
    """The money that the proposal asks for."""
    if proposal.action is not Action.REFUND:
        return None
    return Refund.model_validate(proposal.model_dump(include={"order_id", "amount", "currency"}))


def settled(
    proposal: Proposal,
    found: Classification,
    account: Account,
    lookups: tuple[Found, ...],
    exposure: Exposure | None,
) -> tuple[Outcome, Refund | None]:
    """What the guards let through. Raises Unfit where a person would have to decide."""
    terms = next((each.policy for each in lookups if each.policy), None)
    draft = Draft.model_validate(proposal.model_dump(exclude={"reply"}) | {"reply_digest": ""})
    objection = guards.objection(draft, found.category, account, exposure, terms, RULES)
    if objection is not None:
        raise Unfit(f"the draft waits for a person ({objection}); the load's tickets must not")
    refund = proposed(proposal)
    if refund is not None:
        return Outcome.REFUNDED, refund
    return (Outcome.DECLINED if proposal.action is Action.DECLINE else Outcome.ANSWERED), None


def notice(ticket: Ticket, outcome: Outcome, refund: Refund | None, reply: str) -> Json:
    """Stage 4's request."""
    unfit = letters.unfit(reply, refund, refund.order_id if refund else None)
    text = letters.compose(outcome, refund, None if unfit else reply)
    says = {"outcome": outcome.value, "refund": refund.model_dump(mode="json") if refund else None, "text": text}
    return _identity(ticket) | {"idempotency_key": letter_key(ticket.tenant, ticket.ticket_id)} | says


def holding(ticket: Ticket, refund: Refund) -> Json:
    """The request at the end of stage 3."""
    return refund_posting(ticket, refund) | {"hours": RULES.approval.time_limit_hours}


def refund_posting(ticket: Ticket, refund: Refund) -> Json:
    """Stage 5's first request, and the one before the letter that commits the refund."""
    key = refund_key(ticket.tenant, ticket.ticket_id)
    return _identity(ticket) | {"idempotency_key": key, **refund.model_dump(mode="json")}


def closing(ticket: Ticket, outcome: Outcome, refund_id: str | None) -> Json:
    """Stage 5's second request."""
    key = case_key(ticket.tenant, ticket.ticket_id)
    where = {"tenant": ticket.tenant, "ticket_id": ticket.ticket_id}
    return where | {"idempotency_key": key, "outcome": outcome.value, "refund_id": refund_id}


def found(call: ToolCall, answer: Json) -> Found:
    """A lookup's answer."""
    if call.tool == "lookup_order":
        return Found(call, order=Order.model_validate(answer["order"]))
    return Found(call, policy=RefundPolicy.model_validate(answer["policy"]))


def lookup(ticket: Ticket, call: ToolCall) -> tuple[str, Json]:
    """The system that a tool call asks, and the request."""
    if call.tool == "lookup_order":
        return "orders", _identity(ticket) | {"order_id": call.argument}
    return "policies", {"tenant": ticket.tenant, "category": call.argument}


def account_request(ticket: Ticket) -> Json:
    """Stage 2's request."""
    return {"tenant": ticket.tenant, "customer_id": ticket.customer_id}


def _request(system: str, user: str) -> Json:
    return {"model": MODEL, "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}


def _exchange(lookups: tuple[Found, ...]) -> list[Json]:
    if not lookups:
        return []
    calls = [
        {"id": each.call.id, "type": "function", "function": {"name": each.call.tool, "arguments": _arguments(each)}}
        for each in lookups
    ]
    results = [{"role": "tool", "tool_call_id": each.call.id, "content": _result(each)} for each in lookups]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]


def _arguments(each: Found) -> str:
    (name,) = tools.TOOLS[each.call.tool].arguments.model_fields
    return json.dumps({name: each.call.argument})


def _result(each: Found) -> str:
    value = each.order or each.policy
    return value.model_dump_json(exclude={"held"}) if value else json.dumps({"error": "not_found"})


def _message(answer: Json) -> Json:
    message: Json = answer["choices"][0]["message"]
    return message


def _tool_request(call: Json) -> ToolRequest:
    return ToolRequest(call["id"], call["function"]["name"], call["function"]["arguments"])


def _identity(ticket: Ticket) -> Json:
    return {"tenant": ticket.tenant, "ticket_id": ticket.ticket_id, "customer_id": ticket.customer_id}


_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": definition.name,
            "description": definition.description,
            "parameters": definition.parameters,
        },
    }
    for definition in tools.definitions()
]
