"""The rows that intake and the gateway's journal would have written for a made-up task. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from app.domain.models import CallState
from app.ledger.store.tickets import body_digest
from app.llm.call import answer_to_json
from app.llm.conversation import Answer, ToolRequest
from app.pricing.charge_types import CallRecord, usage_columns
from lab.bench.ledger import texts
from lab.bench.ledger.histories import Made

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
        return texts.classification("damaged" if order else "question", order)
    return texts.draft("refund" if order else "answer", order, "49.90" if order else None, made.reply)
