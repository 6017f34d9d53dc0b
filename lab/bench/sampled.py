"""Works the sample tickets through the agent's stages with the sandbox's model and systems, in one process.

Each model call has the form that Dapr's client gives it on the wire, and is billed as the sandbox bills it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

from app.domain.errors import Refused
from app.domain.models import AnsweredBy, ModelUse, Ticket, UsageBasis
from app.domain.orders import Account
from app.llm.call import ModelCall
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.llm.gateway import ModelAnswer
from app.pricing.charge_types import NOT_REPORTED
from app.workflow.activities.classify import ClassifyInput, classify
from app.workflow.activities.draft_refund import DraftInput, Lookup, draft_refund
from app.workflow.activities.retrieve_account import AccountInput, retrieve_account
from app.workflow.activities.services import Services
from app.workflow.activities.tools import OrderInput, PolicyInput, ToolCall, lookup_order, lookup_refund_policy
from sandbox.data import load_books, load_tickets
from sandbox.model import anthropic, openai
from sandbox.model.brain import answer_question
from sandbox.model.counting import PromptCache, Usage, measure
from sandbox.model.exchange import Answer as SandboxAnswer
from sandbox.model.exchange import shorten
from sandbox.systems.app import METHODS
from sandbox.systems.books import Books
from sandbox.systems.orders import seed

MAX_TURNS = 4
_NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
_MAX_TOKENS = 2048  # what Dapr's Anthropic component always asks for
_CONTEXT = cast(Any, SimpleNamespace(get_inner_context=lambda: SimpleNamespace(task_execution_id="e1")))


@dataclass(frozen=True)
class Protocol:
    """A provider's protocol and a model that is called with it."""

    wire: ModuleType
    model: str

    @property
    def provider(self) -> str:
        """The type of the Dapr component."""
        return f"conversation.{self.wire.NAME}"


OPENAI = Protocol(openai, "sandbox-small")
ANTHROPIC = Protocol(anthropic, "claude-2.1")  # the model whose tokenizer is published


@dataclass(frozen=True)
class BilledCall:
    """One model call, its answer, and the usage that the sandbox bills for it."""

    call: ModelCall
    answer: Answer
    usage: Usage


@dataclass
class SandboxGateway:
    """Replaces the gateway: calls the sandbox's model and keeps each billed call."""

    protocol: Protocol
    cache: PromptCache = field(default_factory=lambda: PromptCache(lambda: _NOW))
    billed: list[BilledCall] = field(default_factory=list)

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """Answers one call, encoded and read as on the wire of the protocol."""
        request = self.protocol.wire.read(json.dumps(self._body(call)).encode())
        output = shorten(answer_question(request), request.max_output_tokens)
        automatic = self.protocol.wire is openai
        usage = measure(request, output, self.cache, self.protocol.wire.COUNTING, key="k", automatic=automatic)
        answer = _answer(output, self.protocol.model)
        self.billed.append(BilledCall(call, answer, usage))
        return ModelAnswer(answer, _model_use(answer, call))

    def _body(self, call: ModelCall) -> dict[str, Any]:
        body = _openai_body(call) if self.protocol.wire is openai else _anthropic_body(call)
        return {"model": self.protocol.model} | body


class InternalSystems:
    """The internal systems without a network."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answers one request. Raises Refused."""
        handler = next(m for m in METHODS if (m.system, m.name) == (system, method))
        answer = dict(handler.work(self._books, handler.body.model_validate(body), _NOW))
        if not answer.pop("ok"):
            raise Refused(f"{system}/{method} refused the request", reason=str(answer["code"]))
        return answer


def run_tickets(protocol: Protocol, state: Path) -> list[BilledCall]:
    """Works all sample tickets, and returns their model calls in order. The sandbox's books go into folder `state`."""
    books = Books(state / f"{protocol.wire.NAME}.sqlite")
    seed(books, load_books, _NOW)
    gateway = SandboxGateway(protocol)
    try:
        asyncio.run(_work_all(gateway, InternalSystems(books)))
    finally:
        books.close()
    return gateway.billed


async def _work_all(gateway: SandboxGateway, systems: InternalSystems) -> None:
    tickets = {ticket.task_id: ticket for ticket in load_tickets()}
    parts: dict[str, Any] = {
        "gateway": gateway,
        "systems": systems,
        "tickets": SimpleNamespace(to_read=tickets.__getitem__),
        "replies": SimpleNamespace(keep=lambda _task, _reply: "0" * 64),
        "scheduled_input": lambda *_: None,
    }
    services = Services(**parts)
    for ticket in tickets.values():
        await _work_one(services, ticket)


async def _work_one(services: Services, ticket: Ticket) -> None:
    classified = await classify(services)(_CONTEXT, ClassifyInput(task_id=ticket.task_id, turn=1))
    account_input = AccountInput(tenant=ticket.tenant, ticket_id=ticket.ticket_id, customer_id=ticket.customer_id)
    account: Account | None = (await retrieve_account(services)(_CONTEXT, account_input)).account
    if classified.classification is None or account is None:
        return
    facts = {"task_id": ticket.task_id, "category": classified.classification.category, "account": account}
    facts["order_id"] = ticket.order_id or classified.classification.order_id
    lookups: tuple[Lookup, ...] = ()
    for turn in range(1, MAX_TURNS + 1):
        draft = await draft_refund(services)(_CONTEXT, DraftInput(turn=turn, lookups=lookups, **facts))
        if not draft.tool_calls:
            return
        lookups += tuple([await _look_up(services, ticket, turn, call) for call in draft.tool_calls])


async def _look_up(services: Services, ticket: Ticket, turn: int, call: ToolCall) -> Lookup:
    if call.tool == "lookup_order":
        identity = {"tenant": ticket.tenant, "ticket_id": ticket.ticket_id, "customer_id": ticket.customer_id}
        order = await lookup_order(services)(_CONTEXT, OrderInput(**identity, order_id=call.argument))
        return Lookup(turn=turn, call=call, order=order.order, problem=order.problem)
    policy_input = PolicyInput(tenant=ticket.tenant, category=cast(Any, call.argument))
    policy = await lookup_refund_policy(services)(_CONTEXT, policy_input)
    return Lookup(turn=turn, call=call, policy=policy.policy, problem=policy.problem)


def _openai_body(call: ModelCall) -> dict[str, Any]:
    return {
        "messages": [_openai_message(message) for message in call.messages],
        "tools": _openai_tools(call.tools) or None,
    }


def _openai_message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "content": message.text, "tool_call_id": message.tool_call_id}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {"role": message.role, "content": message.text or None, "tool_calls": calls or None}


def _openai_tools(tools: tuple[ToolDefinition, ...]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": dict(vars(tool))} for tool in tools]


def _anthropic_body(call: ModelCall) -> dict[str, Any]:
    tools = [{"name": t.name, "description": t.description, "input_schema": t.parameters} for t in call.tools]
    return {
        "max_tokens": _MAX_TOKENS,
        "system": "".join(message.text for message in call.messages if message.role == "system"),
        "messages": [{"role": role, "content": list(blocks)} for role, blocks in _anthropic_turns(call.messages)],
        "tools": tools or None,
    }


def _anthropic_turns(messages: tuple[Message, ...]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for message in messages:
        if message.role == "tool":
            yield "user", [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}]
        elif message.role != "system":
            text = [{"type": "text", "text": message.text}] if message.text else []
            yield message.role, text + [_tool_use(call) for call in message.tool_calls]


def _tool_use(call: ToolRequest) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}


def _answer(output: SandboxAnswer, model: str) -> Answer:
    calls = tuple(ToolRequest(call.id, call.name, call.arguments) for call in output.tool_calls)
    return Answer(output.text, calls, output.finish, model, NOT_REPORTED)


def _model_use(answer: Answer, call: ModelCall) -> ModelUse:
    return ModelUse(
        answered_by=AnsweredBy.PROVIDER,
        component="llm",
        model=answer.model,
        prompt_version=call.prompt_version,
        request_digest=call.digest,
        input_tokens=None,
        cached_tokens=None,
        output_tokens=None,
        reasoning_tokens=None,
        usage_basis=UsageBasis.UNREPORTED,
    )
