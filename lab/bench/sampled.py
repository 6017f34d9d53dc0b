"""Works the sample tickets through the agent's own stages against the sandbox's model and systems, in one process.

Each call to the model takes the form that Dapr's client gives it on the wire, and is billed as the sandbox bills it.
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
from sandbox.model.exchange import Answer as Said
from sandbox.model.exchange import shortened
from sandbox.systems.app import METHODS
from sandbox.systems.books import Books
from sandbox.systems.orders import seed

MOST_TURNS = 4
_NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
_MAX_TOKENS = 2048  # what Dapr's Anthropic component always asks for
_CONTEXT = cast(Any, SimpleNamespace(get_inner_context=lambda: SimpleNamespace(task_execution_id="e1")))


@dataclass(frozen=True)
class Protocol:
    """A provider's protocol, and the model that is asked in it."""

    wire: ModuleType
    model: str

    @property
    def provider(self) -> str:
        """The type of Dapr's component."""
        return f"conversation.{self.wire.NAME}"


OPENAI = Protocol(openai, "sandbox-small")
ANTHROPIC = Protocol(anthropic, "claude-2.1")  # the model whose tokenizer is published


@dataclass(frozen=True)
class Billed:
    """One call with its answer, and what the sandbox bills for it."""

    call: ModelCall
    answer: Answer
    usage: Usage


@dataclass
class Asked:
    """The gateway's place: asks the sandbox's model and remembers each call."""

    protocol: Protocol
    cache: PromptCache = field(default_factory=lambda: PromptCache(lambda: _NOW))
    billed: list[Billed] = field(default_factory=list)

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """One call, over the protocol's wire."""
        question = self.protocol.wire.read(json.dumps(self._body(call)).encode())
        said = shortened(answer_question(question), question.max_output_tokens)
        automatic = self.protocol.wire is openai
        usage = measure(question, said, self.cache, self.protocol.wire.COUNTING, key="k", automatic=automatic)
        answer = _answer(said, self.protocol.model)
        self.billed.append(Billed(call, answer, usage))
        return ModelAnswer(answer, _use(answer, call))

    def _body(self, call: ModelCall) -> dict[str, Any]:
        return {"model": self.protocol.model} | (_openai if self.protocol.wire is openai else _anthropic)(call)


class InternalSystems:
    """The internal systems without a network."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request. Raises Refused."""
        found = next(each for each in METHODS if (each.system, each.name) == (system, method))
        answer = dict(found.work(self._books, found.body.model_validate(body), _NOW))
        if not answer.pop("ok"):
            raise Refused(f"{system}/{method} refuses", reason=str(answer["code"]))
        return answer


def work(protocol: Protocol, state: Path) -> list[Billed]:
    """Every model call that the sample tickets take, in order. `state` is a folder for the books."""
    books = Books(state / f"{protocol.wire.NAME}.sqlite")
    seed(books, load_books, _NOW)
    asked = Asked(protocol)
    try:
        asyncio.run(_work_all(asked, InternalSystems(books)))
    finally:
        books.close()
    return asked.billed


async def _work_all(asked: Asked, systems: InternalSystems) -> None:
    tickets = {ticket.task_id: ticket for ticket in load_tickets()}
    given: dict[str, Any] = {
        "gateway": asked,
        "systems": systems,
        "tickets": SimpleNamespace(to_read=tickets.__getitem__),
        "replies": SimpleNamespace(keep=lambda _task, _reply: "0" * 64),
        "scheduled_input": lambda *_: None,
    }
    services = Services(**given)
    for ticket in tickets.values():
        await _work_one(services, ticket)


async def _work_one(services: Services, ticket: Ticket) -> None:
    sorted_ = await classify(services)(_CONTEXT, ClassifyInput(task_id=ticket.task_id, turn=1))
    whose = AccountInput(tenant=ticket.tenant, ticket_id=ticket.ticket_id, customer_id=ticket.customer_id)
    account: Account | None = (await retrieve_account(services)(_CONTEXT, whose)).account
    if sorted_.classification is None or account is None:
        return
    known = {"task_id": ticket.task_id, "category": sorted_.classification.category, "account": account}
    known["order_id"] = ticket.order_id or sorted_.classification.order_id
    lookups: tuple[Lookup, ...] = ()
    for turn in range(1, MOST_TURNS + 1):
        drafted = await draft_refund(services)(_CONTEXT, DraftInput(turn=turn, lookups=lookups, **known))
        if not drafted.tool_calls:
            return
        lookups += tuple([await _look_up(services, ticket, turn, call) for call in drafted.tool_calls])


async def _look_up(services: Services, ticket: Ticket, turn: int, call: ToolCall) -> Lookup:
    if call.tool == "lookup_order":
        whose = {"tenant": ticket.tenant, "ticket_id": ticket.ticket_id, "customer_id": ticket.customer_id}
        order = OrderInput(**whose, order_id=call.argument)
        found = await lookup_order(services)(_CONTEXT, order)
        return Lookup(turn=turn, call=call, order=found.order, problem=found.problem)
    policy = PolicyInput(tenant=ticket.tenant, category=cast(Any, call.argument))
    found = await lookup_refund_policy(services)(_CONTEXT, policy)
    return Lookup(turn=turn, call=call, policy=found.policy, problem=found.problem)


def _openai(call: ModelCall) -> dict[str, Any]:
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


def _anthropic(call: ModelCall) -> dict[str, Any]:
    tools = [{"name": t.name, "description": t.description, "input_schema": t.parameters} for t in call.tools]
    return {
        "max_tokens": _MAX_TOKENS,
        "system": "".join(message.text for message in call.messages if message.role == "system"),
        "messages": [{"role": role, "content": list(blocks)} for role, blocks in _turns(call.messages)],
        "tools": tools or None,
    }


def _turns(messages: tuple[Message, ...]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for message in messages:
        if message.role == "tool":
            yield "user", [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}]
        elif message.role != "system":
            text = [{"type": "text", "text": message.text}] if message.text else []
            yield message.role, text + [_tool_use(call) for call in message.tool_calls]


def _tool_use(call: ToolRequest) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}


def _answer(said: Said, model: str) -> Answer:
    calls = tuple(ToolRequest(call.id, call.name, call.arguments) for call in said.tool_calls)
    return Answer(said.text, calls, said.finish, model, NOT_REPORTED)


def _use(answer: Answer, call: ModelCall) -> ModelUse:
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
