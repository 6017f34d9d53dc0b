"""Evidence for tests: three tickets, one of each kind, all worked as they must be; each test breaks one thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.pricing.charge_types import CallRecord, TokenUsage
from lab.chaos.evidence import Books, Evidence, Execution, StepSeen, TaskSeen, WorkerSeen
from lab.chaos.load import Expected, make_tickets
from tests.records import at, call_record

TICKETS = make_tickets(1, 3)
_ASKED = {"classify": 300, "draft_refund": 600}
_ANSWERED = 50


def evidence(**changes: Any) -> Evidence:
    """A run in which nothing went wrong."""
    calls = tuple(call for place, each in enumerate(TICKETS) for call in calls_of(each, 20.0 * place))
    good = Evidence(
        tickets=TICKETS,
        accepted=frozenset(each.task_id for each in TICKETS),
        tasks={each.task_id: task(each, 20.0 * place) for place, each in enumerate(TICKETS)},
        books=Books(
            refunds=[refund(each) for each in TICKETS if each.refund],
            bookkeeping=[refund(each) for each in TICKETS if each.refund],
            notifications=[notification(each) for each in TICKETS],
            cases=[case(each) for each in TICKETS],
        ),
        bill=bill(calls),
        calls=calls,
        executions=tuple(run for place, each in enumerate(TICKETS) for run in executions(each, 20.0 * place)),
        workers=(WorkerSeen("w-1", at(0)),),
    )
    return replace(good, **changes)


def named(shape: str) -> Expected:
    """The ticket of that kind."""
    return next(each for each in TICKETS if each.shape == shape)


def task(each: Expected, start: float) -> TaskSeen:
    """A task that ended as it must, a step a second."""
    steps = tuple(
        StepSeen(_id(each, place), (place,), name, 1, at(start + place + 0.5), at(start + place + 0.6), 0)
        for place, name in enumerate(each.steps)
    )
    return TaskSeen(each.task_id, "completed", each.outcome, steps)


def executions(each: Expected, start: float) -> list[Execution]:
    """Each of its steps begun once."""
    return [
        Execution(each.task_id, _id(each, place), place, 1, "w-1", at(start + place))
        for place in range(len(each.steps))
    ]


def calls_of(each: Expected, start: float) -> list[CallRecord]:
    """One settled call for each model step, at its time."""
    turns = Counter[str]()
    found = []
    for place, name in enumerate(each.steps):
        if name in _ASKED:
            turns[name] += 1
            found.append(_call(each, place, name, turns[name], start + place))
    return found


def bill(calls: Sequence[CallRecord]) -> list[dict[str, Any]]:
    """The sandbox's bill of these calls: each was one request, billed as it was reported."""
    return [row(call, number) for number, call in enumerate(calls, 1)]


def row(call: CallRecord, number: int, **changes: Any) -> dict[str, Any]:
    """The request of one call on the bill."""
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


def refund(each: Expected) -> dict[str, Any]:
    """The row of the books for its refund."""
    assert each.refund is not None
    money = {"order_id": each.refund.order_id, "amount": "20.00", "currency": each.refund.currency}
    return {"ticket_id": each.ticket.ticket_id, **money}


def notification(each: Expected) -> dict[str, Any]:
    """The row of the books for its letter."""
    return {"ticket_id": each.ticket.ticket_id, "customer_id": each.ticket.customer_id, "text": "..."}


def case(each: Expected) -> dict[str, Any]:
    """The row of the books for its closed case."""
    refund_id = "RF-000001" if each.refund else None
    return {"ticket_id": each.ticket.ticket_id, "outcome": each.outcome, "refund_id": refund_id}


def _call(each: Expected, place: int, stage: str, turn: int, start: float) -> CallRecord:
    # No two calls of a stage ask for as many tokens: none can stand in for another on the bill.
    asked = _ASKED[stage] + 7 * int(each.ticket.ticket_id[-1]) + turn
    values: dict[str, Any] = {
        "task_id": each.task_id,
        "tenant": each.ticket.tenant,
        "call_id": f"{each.task_id} {place}",
        "stage": stage,
        "turn": turn,
        "usage": TokenUsage(input_tokens=asked, output_tokens=_ANSWERED, cached_tokens=0, reasoning_tokens=0),
        "reserve_input": asked,
        "request_digest": f"{each.task_id} {stage} {turn}",
    }
    return call_record(_id(each, place), start, **values)


def _id(each: Expected, place: int) -> str:
    return f"{each.ticket.ticket_id}/{place}"
