"""Evidence for tests: a run of three tickets, one of each shape, without faults. Each test breaks one thing in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.pricing.charge_types import CallRecord, TokenUsage
from lab.chaos.evidence import Books, Evidence, Execution, ObservedStep, ObservedTask, ObservedWorker
from lab.chaos.load import Expected, make_tickets
from tests.records import at, call_record

TICKETS = make_tickets(1, 3)
_INPUT_TOKENS = {"classify": 300, "draft_refund": 600}
_OUTPUT_TOKENS = 50


def evidence(**changes: Any) -> Evidence:
    """The evidence of a run without faults, with `changes`."""
    calls = tuple(call for place, ticket in enumerate(TICKETS) for call in calls_of(ticket, 20.0 * place))
    good = Evidence(
        tickets=TICKETS,
        accepted=frozenset(ticket.task_id for ticket in TICKETS),
        tasks={ticket.task_id: task(ticket, 20.0 * place) for place, ticket in enumerate(TICKETS)},
        books=Books(
            refunds=[refund(ticket) for ticket in TICKETS if ticket.refund],
            bookkeeping=[refund(ticket) for ticket in TICKETS if ticket.refund],
            notifications=[notification(ticket) for ticket in TICKETS],
            cases=[case(ticket) for ticket in TICKETS],
        ),
        bill=bill(calls),
        calls=calls,
        executions=tuple(run for place, ticket in enumerate(TICKETS) for run in executions(ticket, 20.0 * place)),
        workers=(ObservedWorker("w-1", at(0)),),
    )
    return replace(good, **changes)


def ticket_of(shape: str) -> Expected:
    """The ticket of that shape."""
    return next(ticket for ticket in TICKETS if ticket.shape == shape)


def task(ticket: Expected, start: float) -> ObservedTask:
    """A task that ended as it must, with one step a second from `start` on."""
    steps = tuple(
        ObservedStep(_step_id(ticket, place), (place,), name, 1, at(start + place + 0.5), at(start + place + 0.6), 0)
        for place, name in enumerate(ticket.steps)
    )
    return ObservedTask(ticket.task_id, "completed", ticket.outcome, steps)


def executions(ticket: Expected, start: float) -> list[Execution]:
    """One execution of each step."""
    return [
        Execution(ticket.task_id, _step_id(ticket, place), place, 1, "w-1", at(start + place))
        for place in range(len(ticket.steps))
    ]


def calls_of(ticket: Expected, start: float) -> list[CallRecord]:
    """One settled call for each model step, at the start of the step."""
    turns = Counter[str]()
    calls = []
    for place, name in enumerate(ticket.steps):
        if name in _INPUT_TOKENS:
            turns[name] += 1
            calls.append(_call(ticket, place, name, turns[name], start + place))
    return calls


def bill(calls: Sequence[CallRecord]) -> list[dict[str, Any]]:
    """The sandbox's bill of these calls: one request each, billed as reported."""
    return [row(call, number) for number, call in enumerate(calls, 1)]


def row(call: CallRecord, number: int, **changes: Any) -> dict[str, Any]:
    """The row of the bill for one call, with `changes`."""
    values = {
        "id": number,
        "at": call.started_at.isoformat(),
        "protocol": "openai",
        "model": call.model,
        "input_tokens": call.usage.input_tokens,
        "cached_tokens": 0,
        "output_tokens": call.usage.output_tokens,
        "status": 200,
        "billed": True,
        "stage": call.stage,
        "request_digest": f"{call.task_id} {call.stage} {call.turn}",
    }
    return values | changes


def refund(ticket: Expected) -> dict[str, Any]:
    """The row of the refund in the books."""
    assert ticket.refund is not None
    money = {"order_id": ticket.refund.order_id, "amount": "20.00", "currency": ticket.refund.currency}
    return {"ticket_id": ticket.ticket.ticket_id, **money}


def notification(ticket: Expected) -> dict[str, Any]:
    """The row of the letter in the books."""
    return {"ticket_id": ticket.ticket.ticket_id, "customer_id": ticket.ticket.customer_id, "text": "..."}


def case(ticket: Expected) -> dict[str, Any]:
    """The row of the closed case in the books."""
    refund_id = "RF-000001" if ticket.refund else None
    return {"ticket_id": ticket.ticket.ticket_id, "outcome": ticket.outcome, "refund_id": refund_id}


def _call(ticket: Expected, place: int, stage: str, turn: int, start: float) -> CallRecord:
    # The calls of a stage differ in their tokens, so that none matches the bill's row of another.
    input_tokens = _INPUT_TOKENS[stage] + 7 * int(ticket.ticket.ticket_id[-1]) + turn
    values: dict[str, Any] = {
        "task_id": ticket.task_id,
        "tenant": ticket.ticket.tenant,
        "call_id": f"{ticket.task_id} {place}",
        "stage": stage,
        "turn": turn,
        "usage": TokenUsage(
            input_tokens=input_tokens, output_tokens=_OUTPUT_TOKENS, cached_tokens=0, reasoning_tokens=0
        ),
        "reserve_input": input_tokens,
        "request_digest": f"{ticket.task_id} {stage} {turn}",
    }
    return call_record(_step_id(ticket, place), start, **values)


def _step_id(ticket: Expected, place: int) -> str:
    return f"{ticket.ticket.ticket_id}/{place}"
