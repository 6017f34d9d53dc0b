"""Makes tasks: a ticket, the history of its task as the projector sees it once or twice, its model calls. Seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.dapr.history.model import Failure, RunStatus, WaitOutcome, WorkflowRun
from app.domain.models import (
    CallState,
    Category,
    Classification,
    Draft,
    ModelUse,
    Outcome,
    Proposal,
    Refund,
    TaskResult,
    Ticket,
)
from app.ledger.store.tickets import body_digest
from app.llm.call import answer_to_json
from app.llm.conversation import Answer, ToolRequest
from app.pricing.charge_types import CallRecord, usage_columns
from app.workflow.activities.classify import ClassifyOutput
from app.workflow.activities.draft_refund import DraftOutput
from lab.bench.ledger import population
from lab.bench.ledger.population import OUTCOMES, Fate, Person, fate
from lab.bench.ledger.synthetic_history import SyntheticHistory

_LATER = timedelta(milliseconds=400)  # a hint reaches the projector, and its batch is full
_ORDER = "AC-10442"
_MINUTE = 60_000_000


@dataclass(frozen=True)
class Sight:
    """A history as the projector reads it at a moment."""

    at: datetime
    run: WorkflowRun


@dataclass(frozen=True)
class Made:
    """A task with everything that the ledger gets of it. `reply` is the text of the letter, empty without one."""

    ticket: Ticket
    received_at: datetime
    calls: tuple[CallRecord, ...]
    reply: str
    sights: tuple[Sight, ...]  # at rest, where it rests, and at its end


def make(person: Person) -> Made:
    """The task of a person's ticket."""
    chosen = fate(person.chance)
    ticket = Ticket(
        tenant=person.tenant,
        ticket_id=person.ticket_id,
        customer_id=f"c-{person.chance.randint(1, 99_999)}",
        order_id=_ORDER if chosen.looks_up else None,
        subject=population.subject(person.chance),
        text=population.letter(person.chance),
    )
    reply = population.reply(person.chance)
    history = SyntheticHistory(person, ticket.task_id)
    _worked(history, chosen)
    sights = []
    if chosen.waits:
        history.waits()
        sights.append(_sight(history, RunStatus.RUNNING))
        _waited(history, chosen)
    sights.append(_ended(history, chosen))
    return Made(ticket, person.arrives_at, tuple(history.calls), reply, tuple(sights))


def _worked(history: SyntheticHistory, chosen: Fate) -> None:
    """The first three stages."""
    chance = history.person.chance
    category = Category.DAMAGED if chosen.looks_up else Category.QUESTION
    history.model("classify", 1, lambda use: _classified(category, use))
    history.tools("retrieve_account")
    turn = 1
    if chosen.looks_up or chance.random() < 0.1:
        history.model("draft_refund", turn, lambda use: DraftOutput(use=use).model_dump_json())
        history.tools("lookup_order", *(("lookup_refund_policy",) if chance.random() < 0.8 else ()))
        turn += 1
    if chance.random() < 0.03:  # the model talked nonsense and was asked again
        history.model("draft_refund", turn, lambda use: DraftOutput(use=use, problem="no JSON").model_dump_json())
        turn += 1
    history.model("draft_refund", turn, lambda use: _drafted(chosen, use))


def _waited(history: SyntheticHistory, chosen: Fate) -> None:
    if chosen is Fate.EXPIRED:
        history.decided(72 * 60 * _MINUTE, WaitOutcome.TIMED_OUT)
    elif chosen is Fate.TERMINATED:
        history.decided(history.person.chance.randint(_MINUTE, 600 * _MINUTE), WaitOutcome.ABANDONED)
    else:
        minutes = min(history.person.chance.lognormvariate(4, 1.3), 70 * 60)
        history.decided(int(minutes * _MINUTE), WaitOutcome.ANSWERED)


def _ended(history: SyntheticHistory, chosen: Fate) -> Sight:
    """The last two stages, and the end."""
    outcome = OUTCOMES[chosen]
    if outcome is None:
        failed = chosen is Fate.FAILED
        failure = Failure("NonDeterminismError", "the history does not fit the code") if failed else None
        return _sight(history, RunStatus.FAILED if failed else RunStatus.TERMINATED, failure=failure)
    history.tools("notify_customer")
    if chosen is not Fate.EXPIRED:
        history.tools("close_case")
    return _sight(history, RunStatus.COMPLETED, _result(history, chosen, outcome).model_dump_json())


def _sight(
    history: SyntheticHistory, status: RunStatus, output: str | None = None, failure: Failure | None = None
) -> Sight:
    run = history.run(status, output, failure)
    return Sight(history.person.arrives_at + timedelta(microseconds=history.now) + _LATER, run)


def _result(history: SyntheticHistory, chosen: Fate, outcome: Outcome) -> TaskResult:
    refund = refund_id = None
    if outcome is Outcome.REFUNDED:
        amount = Decimal(history.person.chance.randint(500, 40_000)).scaleb(-2)
        refund = Refund(order_id=_ORDER, amount=amount, currency="EUR")
        refund_id = f"R-{history.person.number:08d}"
    category = Category.DAMAGED if chosen.looks_up else Category.QUESTION
    by = "kim" if chosen in (Fate.APPROVED, Fate.REJECTED) else None
    return TaskResult(outcome=outcome, category=category, refund=refund, refund_id=refund_id, decided_by=by)


def _classified(category: Category, use: ModelUse) -> str:
    found = Classification(
        category=category, wants_refund=category is Category.DAMAGED, language="en", confidence=Decimal("0.94")
    )
    return ClassifyOutput(classification=found, problem=None, use=use).model_dump_json()


def _drafted(chosen: Fate, use: ModelUse) -> str:
    draft = Draft(**proposal(chosen).model_dump(), reply_digest=use.request_digest)
    return DraftOutput(draft=draft, use=use).model_dump_json()


def proposal(chosen: Fate) -> Proposal:
    """What the model proposes for such a task."""
    action = {Fate.ANSWERED: "answer", Fate.DECLINED: "decline"}.get(chosen, "refund")
    money = {"order_id": _ORDER, "amount": "49.90", "currency": "EUR"} if action == "refund" else {}
    return Proposal.model_validate({"action": action, "reason": "as_ordered", "confidence": "0.91", **money})


# The rows that intake and the gateway's journal would have written for a made-up task.

_SAME = [field.name for field in fields(CallRecord) if field.name not in ("usage", "model", "finish_reason", "error")]


def ticket_row(made: Made) -> dict[str, Any]:
    """As intake keeps a ticket, once its task was started."""
    ticket = made.ticket
    return {
        "task_id": ticket.task_id,
        "tenant": ticket.tenant,
        "ticket_id": ticket.ticket_id,
        "customer_id": ticket.customer_id,
        "order_id": ticket.order_id,
        "digest": body_digest(ticket),
        "subject": ticket.subject,
        "text": ticket.text,
        "received_at": made.received_at,
        "started": True,
        "recorded": False,
    }


def reply_row(made: Made) -> dict[str, Any]:
    """As the third stage keeps its letter."""
    digest = hashlib.sha256(made.reply.encode()).hexdigest()
    written = made.calls[-1].ended_at or made.calls[-1].started_at
    return {"task_id": made.ticket.task_id, "digest": digest, "text": made.reply, "written_at": written}


def call_rows(made: Made) -> Iterator[dict[str, Any]]:
    """As the journal keeps the calls, once they are over."""
    for call in made.calls:
        answered = call.state is CallState.SETTLED
        yield {
            **{name: getattr(call, name) for name in _SAME},
            **usage_columns(call.usage),
            "model": call.model or None,
            "finish_reason": call.finish_reason or None,
            "error": call.error or None,
            "answer": answer_to_json(_answer(made, call)) if answered else None,
        }


def _answer(made: Made, call: CallRecord) -> Answer:
    if call.stage != "classify" and call is not made.calls[-1]:
        asked = tuple(
            ToolRequest(f"call_{call.request_digest[:24]}", name, '{"order_id": "AC-10442"}')
            for name in ("lookup_order", "lookup_refund_policy")
        )
        return Answer("", asked, "tool_calls", call.model, call.usage)
    return Answer(_text(made, call), (), "stop", call.model, call.usage)


def _text(made: Made, call: CallRecord) -> str:
    order = made.ticket.order_id
    if call.stage == "classify":
        return population.classification("damaged" if order else "question", order)
    return population.draft("refund" if order else "answer", order, "49.90" if order else None, made.reply)
