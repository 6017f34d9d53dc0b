"""Makes synthetic tasks: the ticket, its history as the projector reads it once or twice, and its model calls."""

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
from lab.bench.ledger.population import OUTCOMES, Ending, Person, choose_ending
from lab.bench.ledger.synthetic_history import SyntheticHistory

_LATER = timedelta(milliseconds=400)  # until a hint reaches the projector and its batch is full
_ORDER = "AC-10442"
_MINUTE = 60_000_000


@dataclass(frozen=True)
class Sight:
    """A history as the projector reads it at a moment."""

    at: datetime
    run: WorkflowRun


@dataclass(frozen=True)
class SyntheticTask:
    """A task with everything that the ledger stores about it. `reply` is the text of its letter."""

    ticket: Ticket
    received_at: datetime
    calls: tuple[CallRecord, ...]
    reply: str
    sights: tuple[Sight, ...]  # when it starts to wait for a person, if it does, and at its end


def make_task(person: Person) -> SyntheticTask:
    """The task of a person's ticket."""
    ending = choose_ending(person.chance)
    ticket = Ticket(
        tenant=person.tenant,
        ticket_id=person.ticket_id,
        customer_id=f"c-{person.chance.randint(1, 99_999)}",
        order_id=_ORDER if ending.looks_up else None,
        subject=population.subject(person.chance),
        text=population.letter(person.chance),
    )
    reply = population.reply(person.chance)
    history = SyntheticHistory(person, ticket.task_id)
    _add_first_stages(history, ending)
    sights = []
    if ending.waits:
        history.start_wait()
        sights.append(_sight(history, RunStatus.RUNNING))
        _end_wait(history, ending)
    sights.append(_add_end(history, ending))
    return SyntheticTask(ticket, person.arrives_at, tuple(history.calls), reply, tuple(sights))


def _add_first_stages(history: SyntheticHistory, ending: Ending) -> None:
    """Adds the first three stages."""
    chance = history.person.chance
    category = Category.DAMAGED if ending.looks_up else Category.QUESTION
    history.model("classify", 1, lambda use: _classify_output(category, use))
    history.tools("retrieve_account")
    turn = 1
    if ending.looks_up or chance.random() < 0.1:
        history.model("draft_refund", turn, lambda use: DraftOutput(use=use).model_dump_json())
        history.tools("lookup_order", *(("lookup_refund_policy",) if chance.random() < 0.8 else ()))
        turn += 1
    if chance.random() < 0.03:  # an unusable answer, then another turn
        history.model("draft_refund", turn, lambda use: DraftOutput(use=use, problem="no JSON").model_dump_json())
        turn += 1
    history.model("draft_refund", turn, lambda use: _draft_output(ending, use))


def _end_wait(history: SyntheticHistory, ending: Ending) -> None:
    if ending is Ending.EXPIRED:
        history.end_wait(72 * 60 * _MINUTE, WaitOutcome.TIMED_OUT)
    elif ending is Ending.TERMINATED:
        history.end_wait(history.person.chance.randint(_MINUTE, 600 * _MINUTE), WaitOutcome.ABANDONED)
    else:
        minutes = min(history.person.chance.lognormvariate(4, 1.3), 70 * 60)
        history.end_wait(int(minutes * _MINUTE), WaitOutcome.ANSWERED)


def _add_end(history: SyntheticHistory, ending: Ending) -> Sight:
    """Adds the last two stages and the end."""
    outcome = OUTCOMES[ending]
    if outcome is None:
        failed = ending is Ending.FAILED
        failure = Failure("NonDeterminismError", "the history does not fit the code") if failed else None
        return _sight(history, RunStatus.FAILED if failed else RunStatus.TERMINATED, failure=failure)
    history.tools("notify_customer")
    if ending is not Ending.EXPIRED:
        history.tools("close_case")
    return _sight(history, RunStatus.COMPLETED, _result(history, ending, outcome).model_dump_json())


def _sight(
    history: SyntheticHistory, status: RunStatus, output: str | None = None, failure: Failure | None = None
) -> Sight:
    run = history.run(status, output, failure)
    return Sight(history.person.arrives_at + timedelta(microseconds=history.now) + _LATER, run)


def _result(history: SyntheticHistory, ending: Ending, outcome: Outcome) -> TaskResult:
    refund = refund_id = None
    if outcome is Outcome.REFUNDED:
        amount = Decimal(history.person.chance.randint(500, 40_000)).scaleb(-2)
        refund = Refund(order_id=_ORDER, amount=amount, currency="EUR")
        refund_id = f"R-{history.person.number:08d}"
    category = Category.DAMAGED if ending.looks_up else Category.QUESTION
    by = "kim" if ending in (Ending.APPROVED, Ending.REJECTED) else None
    return TaskResult(outcome=outcome, category=category, refund=refund, refund_id=refund_id, decided_by=by)


def _classify_output(category: Category, use: ModelUse) -> str:
    classification = Classification(
        category=category, wants_refund=category is Category.DAMAGED, language="en", confidence=Decimal("0.94")
    )
    return ClassifyOutput(classification=classification, problem=None, use=use).model_dump_json()


def _draft_output(ending: Ending, use: ModelUse) -> str:
    draft = Draft(**proposal(ending).model_dump(), reply_digest=use.request_digest)
    return DraftOutput(draft=draft, use=use).model_dump_json()


def proposal(ending: Ending) -> Proposal:
    """The proposal of the model for a task with this ending."""
    action = {Ending.ANSWERED: "answer", Ending.DECLINED: "decline"}.get(ending, "refund")
    money = {"order_id": _ORDER, "amount": "49.90", "currency": "EUR"} if action == "refund" else {}
    return Proposal.model_validate({"action": action, "reason": "as_ordered", "confidence": "0.91", **money})


# Columns of the journal that equal the fields of a call.
_CALL_COLUMNS = [
    field.name for field in fields(CallRecord) if field.name not in ("usage", "model", "finish_reason", "error")
]


def ticket_row(task: SyntheticTask) -> dict[str, Any]:
    """The ticket's row as the intake writes it, with the task started."""
    ticket = task.ticket
    return {
        "task_id": ticket.task_id,
        "tenant": ticket.tenant,
        "ticket_id": ticket.ticket_id,
        "customer_id": ticket.customer_id,
        "order_id": ticket.order_id,
        "digest": body_digest(ticket),
        "subject": ticket.subject,
        "text": ticket.text,
        "received_at": task.received_at,
        "started": True,
        "recorded": False,
    }


def reply_row(task: SyntheticTask) -> dict[str, Any]:
    """The letter's row as the third stage writes it."""
    digest = hashlib.sha256(task.reply.encode()).hexdigest()
    written_at = task.calls[-1].ended_at or task.calls[-1].started_at
    return {"task_id": task.ticket.task_id, "digest": digest, "text": task.reply, "written_at": written_at}


def call_rows(task: SyntheticTask) -> Iterator[dict[str, Any]]:
    """The calls' rows as the journal has them after the task."""
    for call in task.calls:
        answered = call.state is CallState.SETTLED
        yield {
            **{name: getattr(call, name) for name in _CALL_COLUMNS},
            **usage_columns(call.usage),
            "model": call.model or None,
            "finish_reason": call.finish_reason or None,
            "error": call.error or None,
            "answer": answer_to_json(_answer(task, call)) if answered else None,
        }


def _answer(task: SyntheticTask, call: CallRecord) -> Answer:
    if call.stage != "classify" and call is not task.calls[-1]:
        requests = tuple(
            ToolRequest(f"call_{call.request_digest[:24]}", name, '{"order_id": "AC-10442"}')
            for name in ("lookup_order", "lookup_refund_policy")
        )
        return Answer("", requests, "tool_calls", call.model, call.usage)
    return Answer(_text(task, call), (), "stop", call.model, call.usage)


def _text(task: SyntheticTask, call: CallRecord) -> str:
    order = task.ticket.order_id
    if call.stage == "classify":
        return population.classification("damaged" if order else "question", order)
    return population.draft("refund" if order else "answer", order, "49.90" if order else None, task.reply)
