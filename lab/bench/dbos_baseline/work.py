"""The requests, answers and guards of DBOS's steps, with the product's rules and prompts."""

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


class UnexpectedOutcome(Exception):
    """A task does not end as its benchmark ticket must; the measurement is void."""


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
class LookupResult:
    """A tool call and its result."""

    call: ToolCall
    order: Order | None = None
    policy: RefundPolicy | None = None


def classify_request(ticket: Ticket) -> Json:
    """The model request of stage 1."""
    form = f"Subject: {ticket.subject}\nOrder in the form: {ticket.order_id or 'none'}"
    return _request(prompts.CLASSIFY, f"{form}\n{prompts.ticket_block(ticket.text)}")


def read_classification(answer: Json) -> Classification:
    """The classification in the model's answer of stage 1. Raises InvalidAnswer."""
    return validate(Classification, json_object(_message(answer)["content"]))


def draft_request(
    ticket: Ticket, classification: Classification, account: Account, lookups: tuple[LookupResult, ...]
) -> Json:
    """The model request of stage 3, for one turn."""
    lines = (
        f"Category: {classification.category.value}",
        f"Order: {ticket.order_id or classification.order_id or 'none'}",
        f"Account: {account.model_dump_json()}",
        f"Subject: {ticket.subject}",
        prompts.ticket_block(ticket.text),
    )
    request = _request(prompts.DRAFT, "\n".join(lines))
    request["messages"] += _lookup_messages(lookups)
    return request | {"tools": _TOOLS, "tool_choice": "auto"}


def read_draft(answer: Json, turn: int) -> Proposal | tuple[ToolCall, ...]:
    """The tool calls or the proposal in the model's answer of stage 3. Raises InvalidAnswer."""
    message = _message(answer)
    requests = tuple(_tool_request(call) for call in message.get("tool_calls") or ())
    if requests:
        return tools.check_requests(requests, turn)
    return validate(Proposal, json_object(message["content"]))


def proposed_refund(proposal: Proposal) -> Refund | None:
    """The refund that the proposal asks for, if any."""
    if proposal.action is not Action.REFUND:
        return None
    return Refund.model_validate(proposal.model_dump(include={"order_id", "amount", "currency"}))


def decide(
    proposal: Proposal,
    classification: Classification,
    account: Account,
    lookups: tuple[LookupResult, ...],
    exposure: Exposure | None,
) -> tuple[Outcome, Refund | None]:
    """The outcome and the refund that the guards allow. Raises UnexpectedOutcome if a person would have to decide."""
    terms = next((result.policy for result in lookups if result.policy), None)
    draft = Draft.model_validate(proposal.model_dump(exclude={"reply"}) | {"reply_digest": ""})
    objection = guards.objection(draft, classification.category, account, exposure, terms, RULES)
    if objection is not None:
        raise UnexpectedOutcome(f"the draft waits for a person ({objection}); a benchmark's ticket must not")
    refund = proposed_refund(proposal)
    if refund is not None:
        return Outcome.REFUNDED, refund
    return (Outcome.DECLINED if proposal.action is Action.DECLINE else Outcome.ANSWERED), None


def letter_request(ticket: Ticket, outcome: Outcome, refund: Refund | None, reply: str) -> Json:
    """The request of stage 4 to the notifications system."""
    unfit = letters.unfit(reply, refund, refund.order_id if refund else None)
    text = letters.compose(outcome, refund, None if unfit else reply)
    content = {"outcome": outcome.value, "refund": refund.model_dump(mode="json") if refund else None, "text": text}
    return _identity(ticket) | {"idempotency_key": letter_key(ticket.tenant, ticket.ticket_id)} | content


def hold_request(ticket: Ticket, refund: Refund) -> Json:
    """The request at the end of stage 3 that holds the refund."""
    return refund_request(ticket, refund) | {"hours": RULES.approval.time_limit_hours}


def refund_request(ticket: Ticket, refund: Refund) -> Json:
    """The request that commits the refund in stage 4 and, the same, posts it in stage 5."""
    key = refund_key(ticket.tenant, ticket.ticket_id)
    return _identity(ticket) | {"idempotency_key": key, **refund.model_dump(mode="json")}


def close_request(ticket: Ticket, outcome: Outcome, refund_id: str | None) -> Json:
    """The request of stage 5 that closes the case."""
    key = case_key(ticket.tenant, ticket.ticket_id)
    identity = {"tenant": ticket.tenant, "ticket_id": ticket.ticket_id}
    return identity | {"idempotency_key": key, "outcome": outcome.value, "refund_id": refund_id}


def read_lookup(call: ToolCall, answer: Json) -> LookupResult:
    """The result of a tool call, from the system's answer."""
    if call.tool == "lookup_order":
        return LookupResult(call, order=Order.model_validate(answer["order"]))
    return LookupResult(call, policy=RefundPolicy.model_validate(answer["policy"]))


def lookup_request(ticket: Ticket, call: ToolCall) -> tuple[str, Json]:
    """The system that a tool call goes to, and the request."""
    if call.tool == "lookup_order":
        return "orders", _identity(ticket) | {"order_id": call.argument}
    return "policies", {"tenant": ticket.tenant, "category": call.argument}


def account_request(ticket: Ticket) -> Json:
    """The request of stage 2 to the accounts system."""
    return {"tenant": ticket.tenant, "customer_id": ticket.customer_id}


def _request(system: str, user: str) -> Json:
    return {"model": MODEL, "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}


def _lookup_messages(lookups: tuple[LookupResult, ...]) -> list[Json]:
    if not lookups:
        return []
    calls = [
        {
            "id": lookup.call.id,
            "type": "function",
            "function": {"name": lookup.call.tool, "arguments": _arguments(lookup)},
        }
        for lookup in lookups
    ]
    results = [{"role": "tool", "tool_call_id": lookup.call.id, "content": _result(lookup)} for lookup in lookups]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]


def _arguments(lookup: LookupResult) -> str:
    (name,) = tools.TOOLS[lookup.call.tool].arguments.model_fields
    return json.dumps({name: lookup.call.argument})


def _result(lookup: LookupResult) -> str:
    value = lookup.order or lookup.policy
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
