"""The brain's drafts for the sample tickets, with orders and policies as the internal systems tell them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.domain.models import Outcome, Ticket
from sandbox.data import Expectation, load_expected, load_tickets
from sandbox.faults import FaultBook
from sandbox.model.brain import answer_question
from sandbox.model.exchange import Message, Question, Tool, ToolCall
from sandbox.systems import create_app

LEAST_RIGHT = 0.95
MAX_TURNS = 3
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TOOLS = (Tool("lookup_order", "{}"), Tool("lookup_refund_policy", "{}"))
ACTIONS = {Outcome.REFUNDED: {"refund"}, Outcome.DECLINED: {"decline"}, Outcome.ANSWERED: {"answer"}}


@dataclass(frozen=True)
class Desk:
    """Works tickets as the agent does, against the internal systems."""

    systems: TestClient[web.Request, web.Application]

    async def ask(self, path: str, part: str, **body: str) -> dict[str, Any]:
        """One request to a system; a refusal comes as {"error": code}, as a tool result has it."""
        answer = await (await self.systems.post(path, json=body)).json()
        found: dict[str, Any] = answer[part] if answer["ok"] else {"error": answer["code"]}
        return found

    async def draft(self, ticket: Ticket) -> dict[str, Any]:
        """Classifies and drafts one ticket; the draft is the model's last word."""
        block = f"Subject: {ticket.subject}\n<ticket>\n{ticket.text}\n</ticket>"
        first = Message("user", f"Order in the form: {ticket.order_id or 'none'}\n{block}")
        found = json.loads(answer_question(Question("m", (Message("system", "Stage: classify"), first))).text)
        account = await self.ask("/accounts/get", "account", tenant=ticket.tenant, customer_id=ticket.customer_id)
        head = f"Category: {found['category']}\nOrder: {found['order_id'] or 'none'}\nAccount: {json.dumps(account)}"
        return await self._turns(ticket, [Message("system", "Stage: draft"), Message("user", f"{head}\n{block}")])

    async def _turns(self, ticket: Ticket, messages: list[Message]) -> dict[str, Any]:
        for _ in range(MAX_TURNS):
            answer = answer_question(Question("m", tuple(messages), TOOLS))
            if not answer.tool_calls:
                draft: dict[str, Any] = json.loads(answer.text)
                return draft
            messages.append(Message("assistant", "", answer.tool_calls))
            messages += [await self._looked_up(ticket, call) for call in answer.tool_calls]
        raise AssertionError(f"{ticket.task_id}: no draft after {MAX_TURNS} turns")

    async def _looked_up(self, ticket: Ticket, call: ToolCall) -> Message:
        wanted = json.loads(call.arguments)
        if call.name == "lookup_order":
            mine = {"tenant": ticket.tenant, "customer_id": ticket.customer_id}
            result = await self.ask("/orders/get", "order", **mine, **wanted)
        else:
            result = await self.ask("/policies/get", "policy", tenant=ticket.tenant, **wanted)
        return Message("tool", json.dumps(result), tool_call_id=call.id)


@asynccontextmanager
async def opened(state: Path) -> AsyncIterator[Desk]:
    """A desk over freshly seeded systems."""
    async with TestClient(TestServer(create_app(state, FaultBook(), lambda: NOW))) as client:
        yield Desk(client)


def fits(draft: dict[str, Any], want: Expectation) -> bool:
    """Whether the draft is what leads to the expected end, given that the agent's guards hold."""
    allowed = ACTIONS[want.outcome] if want.outcome else {"refund", "escalate"}
    if draft["action"] not in allowed:
        return False
    if want.refund is None:
        return True
    proposed = (draft["order_id"], draft["amount"], draft["currency"])
    return proposed == (want.refund.order_id, f"{want.refund.amount:.2f}", want.refund.currency)


async def misses_among(tickets: tuple[Ticket, ...], state: Path) -> list[str]:
    """A line for each ticket whose draft does not fit."""
    expected = load_expected()
    async with opened(state) as desk:
        drafts = [(expected[ticket.task_id], await desk.draft(ticket)) for ticket in tickets]
    return [f"{want.task_id} ({want.kind}): {draft}" for want, draft in drafts if not fits(draft, want)]


def test_drafts_of_the_clear_tickets(tmp_path: Path) -> None:
    expected = load_expected()
    clear = tuple(ticket for ticket in load_tickets() if expected[ticket.task_id].clear)
    misses = asyncio.run(misses_among(clear, tmp_path))
    assert 1 - len(misses) / len(clear) >= LEAST_RIGHT, "\n".join(misses)
