"""Stage 3: one model call of the drafting loop, and the hold on the drafted money. The loop itself is in the workflow
(`_ask_for_draft` in `app/workflow/refund.py`)."""

from __future__ import annotations

import asyncio
import json

from dapr.ext.workflow import WorkflowActivityContext
from pydantic import Field

from app.domain.errors import Refused
from app.domain.models import Action, Category, Draft, Frozen, ModelUse, Proposal, Refund
from app.domain.orders import Account, Exposure, Hold, Order, RefundPolicy
from app.domain.texts import Text
from app.ledger.store.tickets import StoredTicket
from app.llm.call import ModelCall
from app.llm.conversation import Message, ToolRequest
from app.llm.json_answer import InvalidAnswer, json_object, validate
from app.workflow.activities import prompts, tools
from app.workflow.activities.services import Activity, Services, execution_id, refund_request
from app.workflow.activities.tools import ToolCall


class Lookup(Frozen):
    """A tool call of an earlier turn with its result; `problem` is the code of a refusal."""

    turn: int
    call: ToolCall
    order: Order | None = None
    policy: RefundPolicy | None = None
    problem: str | None = None


class DraftInput(Frozen):
    """What is known before the turn. `problem` says why the previous turn's answer was not usable."""

    task_id: str
    turn: int
    category: Category
    order_id: str | None
    account: Account
    lookups: tuple[Lookup, ...] = ()
    problem: str | None = None


class DraftOutput(Frozen):
    """Either tools to call, or a draft, or the problem with the model's answer."""

    tool_calls: tuple[ToolCall, ...] = ()
    draft: Draft | None = None
    problem: str | None = None
    use: ModelUse


class _Answer(Proposal):
    """The model's final answer. Its reply goes to the ledger, the rest into the draft."""

    reply: Text = Field(min_length=1, max_length=10_000)


def draft_refund(services: Services) -> Activity:
    """Makes the activity."""
    offered = tools.definitions()

    async def draft_refund(context: WorkflowActivityContext, question: DraftInput) -> DraftOutput:
        ticket = await asyncio.to_thread(services.tickets.to_read, question.task_id)
        call = ModelCall(
            tenant=ticket.tenant,
            task_id=question.task_id,
            stage="draft_refund",
            turn=question.turn,
            execution_id=execution_id(context),
            prompt_version=prompts.VERSION,
            messages=_messages(ticket, question),
            tools=offered,
        )
        answered = await services.gateway.ask(call)
        try:
            if answered.answer.tool_calls:
                calls = tools.check_requests(answered.answer.tool_calls, question.turn)
                return DraftOutput(tool_calls=calls, use=answered.use)
            proposal = validate(_Answer, json_object(answered.answer.text))
            _require_refund_fields(proposal)
        except InvalidAnswer as problem:
            return DraftOutput(problem=str(problem), use=answered.use)
        digest = await asyncio.to_thread(services.replies.keep, question.task_id, proposal.reply)
        draft = Draft(**proposal.model_dump(exclude={"reply"}), reply_digest=digest)
        return DraftOutput(draft=draft, use=answered.use)

    return draft_refund


def _require_refund_fields(proposal: _Answer) -> None:
    """Raises InvalidAnswer for a refund without order, amount or currency."""
    missing = [name for name in ("order_id", "amount", "currency") if getattr(proposal, name) is None]
    if proposal.action is Action.REFUND and missing:
        raise InvalidAnswer(f"a refund needs {', '.join(missing)}")


def _messages(ticket: StoredTicket, question: DraftInput) -> tuple[Message, ...]:
    letter = "\n".join(
        (
            f"Category: {question.category.value}",
            f"Order: {question.order_id or 'none'}",
            f"Account: {question.account.model_dump_json()}",
            f"Subject: {ticket.subject}",
            prompts.ticket_block(ticket.text),
        )
    )
    messages = [Message("system", prompts.DRAFT), Message("user", letter), *_exchange(question.lookups)]
    if question.problem is not None:
        messages.append(Message("user", prompts.CORRECTION.format(problem=question.problem)))
    return tuple(messages)


def _exchange(lookups: tuple[Lookup, ...]) -> list[Message]:
    """The earlier turns as chat messages: per turn the assistant's tool calls, then one tool message for each."""
    messages: list[Message] = []
    for turn in sorted({lookup.turn for lookup in lookups}):
        of_turn = [lookup for lookup in lookups if lookup.turn == turn]
        messages.append(Message("assistant", tool_calls=tuple(_request(lookup) for lookup in of_turn)))
        messages += [
            Message("tool", _result(lookup), tool_call_id=lookup.call.id, name=lookup.call.tool) for lookup in of_turn
        ]
    return messages


def _request(lookup: Lookup) -> ToolRequest:
    (name,) = tools.TOOLS[lookup.call.tool].arguments.model_fields
    return ToolRequest(lookup.call.id, lookup.call.tool, json.dumps({name: lookup.call.argument}))


def _result(lookup: Lookup) -> str:
    result = lookup.order or lookup.policy
    return result.model_dump_json(exclude={"held"}) if result else json.dumps({"error": lookup.problem})


# The end of stage 3, a tool: the refund system holds the drafted money for this ticket.


class HoldInput(Frozen):
    """The refund to hold, for which ticket and customer, and after how many hours the hold expires."""

    tenant: str
    ticket_id: str
    customer_id: str
    refund: Refund
    hours: float


class HoldOutput(Frozen):
    """What the refund system holds for the ticket now, or the code of its refusal. If another run of the ticket has
    committed a refund already, `hold` is that refund, whatever was asked for. `exposure` is as of the moment of the
    hold."""

    hold: Hold | None = None
    exposure: Exposure | None = None
    refusal: str | None = None


def hold_refund(services: Services) -> Activity:
    """Makes the activity."""

    async def hold_refund(_context: WorkflowActivityContext, question: HoldInput) -> HoldOutput:
        body = refund_request(question.tenant, question.ticket_id, question.customer_id, question.refund)
        body["hours"] = question.hours
        try:
            return HoldOutput.model_validate(await services.systems.ask("refunds", "hold", body))
        except Refused as refusal:
            return HoldOutput(refusal=refusal.reason)

    return hold_refund
