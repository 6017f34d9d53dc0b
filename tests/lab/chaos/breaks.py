"""Breaks of good evidence, one at a time, with the checks that must report them; and helpers to make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.domain.models import CallState, UsageBasis
from app.pricing.charge_types import CallRecord, TokenUsage
from lab.chaos.evidence import Evidence, Execution, ObservedStep
from tests.lab.chaos import evidence as samples

Break = Callable[[Evidence], Evidence]
REFUND, GREEDY = samples.ticket_of("refund"), samples.ticket_of("greedy")


def with_books(evidence: Evidence, **books: Any) -> Evidence:
    return replace(evidence, books=replace(evidence.books, **books))


def with_step(evidence: Evidence, **changes: Any) -> Evidence:
    """Changes the first step of the refund."""
    task = evidence.tasks[REFUND.task_id]
    steps = (replace(task.steps[0], **changes), *task.steps[1:])
    return replace(evidence, tasks={**evidence.tasks, REFUND.task_id: replace(task, steps=steps)})


def with_task(evidence: Evidence, **changes: Any) -> Evidence:
    task = evidence.tasks[REFUND.task_id]
    return replace(evidence, tasks={**evidence.tasks, REFUND.task_id: replace(task, **changes)})


def first_step(evidence: Evidence) -> ObservedStep:
    return evidence.tasks[REFUND.task_id].steps[0]


def add_late_execution(evidence: Evidence, seconds: float) -> Evidence:
    """Adds an execution of the refund's first step, `seconds` after its completion was in the history."""
    step = first_step(evidence)
    assert step.saved_by is not None
    again = Execution(
        REFUND.task_id, step.execution_id, step.event_ids[0], 2, "w-2", step.saved_by + timedelta(seconds=seconds)
    )
    return replace(evidence, executions=(*evidence.executions, again))


def first_call(evidence: Evidence) -> CallRecord:
    return next(call for call in evidence.calls if call.task_id == REFUND.task_id)


def repeat_call(evidence: Evidence, seconds: float, **changes: Any) -> CallRecord:
    """A second call of the refund's first turn, started `seconds` after the answer of the first."""
    call = first_call(evidence)
    assert call.ended_at is not None
    times: dict[str, Any] = {"started_at": call.ended_at + timedelta(seconds=seconds), "number": 2, "call_id": "again"}
    times["ended_at"] = call.ended_at + timedelta(seconds=seconds + 0.2)
    return replace(call, **times | changes)


def add_call(evidence: Evidence, call: CallRecord, **row: Any) -> Evidence:
    """Adds that call to the journal and the bill."""
    digest = first_call(evidence).request_digest
    billed = samples.row(call, len(evidence.bill) + 1, **{"request_digest": digest} | row)
    return replace(evidence, calls=(*evidence.calls, call), bill=(*evidence.bill, billed))


def add_interrupted_call(evidence: Evidence) -> Evidence:
    """Adds a billed call that was lost with its worker, before the call that settled its turn."""
    call = first_call(evidence)
    usage = TokenUsage(input_tokens=call.usage.input_tokens, output_tokens=1_000, basis=UsageBasis.ESTIMATED)
    lost = replace(
        call,
        call_id="lost",
        state=CallState.INTERRUPTED,
        started_at=call.started_at - timedelta(seconds=3),
        ended_at=None,
        usage=usage,
        error="the step was executed again",
    )
    settled = replace(call, number=2)
    calls = tuple(settled if other is call else other for other in evidence.calls)
    billed = samples.row(lost, 99, output_tokens=call.usage.output_tokens, status=0)
    return replace(evidence, calls=(lost, *calls), bill=(billed, *evidence.bill))


# Each break, and the counts of the checks that report it, by key; 0 stands for any count.
BREAKS: dict[str, tuple[Break, dict[str, int]]] = {
    "a ticket was never accepted": (
        lambda evidence: replace(evidence, accepted=evidence.accepted - {REFUND.task_id}),
        {"tasks_lost": 1},
    ),
    "a task is not there": (
        lambda evidence: replace(
            evidence, tasks={key: task for key, task in evidence.tasks.items() if key != REFUND.task_id}
        ),
        {"tasks_lost": 1, "steps_other": 1},
    ),
    "a task never ended": (lambda evidence: with_task(evidence, status="running", outcome=""), {"tasks_lost": 1}),
    "a task ended with another outcome": (lambda evidence: with_task(evidence, outcome="declined"), {"tasks_lost": 1}),
    "a task was terminated": (lambda evidence: with_task(evidence, status="terminated"), {"tasks_lost": 1}),
    "a refund is missing": (lambda evidence: with_books(evidence, refunds=[]), {"refunds_missing": 1}),
    "a refund is doubled": (
        lambda evidence: with_books(evidence, refunds=[*evidence.books.refunds, samples.refund(REFUND)]),
        {"refunds_doubled": 1},
    ),
    "a refund is of another amount": (
        lambda evidence: with_books(evidence, refunds=[samples.refund(REFUND) | {"amount": "20.01"}]),
        {"refunds_wrong": 1},
    ),
    "a refund is of another order": (
        lambda evidence: with_books(evidence, refunds=[samples.refund(REFUND) | {"order_id": "LD-00000009"}]),
        {"refunds_wrong": 1},
    ),
    "the bookkeeping never heard of a refund": (
        lambda evidence: with_books(evidence, bookkeeping=[]),
        {"bookkeeping_missing": 1},
    ),
    "the bookkeeping heard of a refund twice": (
        lambda evidence: with_books(evidence, bookkeeping=[*evidence.books.bookkeeping, samples.refund(REFUND)]),
        {"bookkeeping_doubled": 1},
    ),
    "the bookkeeping heard of another amount": (
        lambda evidence: with_books(evidence, bookkeeping=[samples.refund(REFUND) | {"amount": "2.00"}]),
        {"bookkeeping_wrong": 1},
    ),
    "a rejected ticket is refunded": (
        lambda evidence: with_books(
            evidence, refunds=[*evidence.books.refunds, samples.refund(REFUND) | {"ticket_id": GREEDY.ticket.ticket_id}]
        ),
        {"refunds_wrong": 1},
    ),
    "a letter is missing": (
        lambda evidence: with_books(evidence, notifications=evidence.books.notifications[1:]),
        {"notifications_missing": 1},
    ),
    "a letter is doubled": (
        lambda evidence: with_books(
            evidence, notifications=[*evidence.books.notifications, samples.notification(REFUND)]
        ),
        {"notifications_doubled": 1},
    ),
    "a letter went to another customer": (
        lambda evidence: with_books(
            evidence,
            notifications=[{**letter, "customer_id": "load-00000077"} for letter in evidence.books.notifications],
        ),
        {"notifications_wrong": 3},
    ),
    "a case is not closed": (
        lambda evidence: with_books(evidence, cases=evidence.books.cases[1:]),
        {"cases_missing": 1},
    ),
    "a case is closed twice": (
        lambda evidence: with_books(evidence, cases=[*evidence.books.cases, samples.case(REFUND)]),
        {"cases_doubled": 1},
    ),
    "a case is closed without its refund": (
        lambda evidence: with_books(evidence, cases=[{**case, "refund_id": None} for case in evidence.books.cases]),
        {"cases_wrong": 1},
    ),
    "a step completed twice": (lambda evidence: with_step(evidence, completions=2), {"steps_completed_twice": 1}),
    "a step is missing": (lambda evidence: with_step(evidence, completions=0), {"steps_other": 1}),
    "another step was worked": (lambda evidence: with_step(evidence, name="close_case"), {"steps_other": 1}),
    "a step was scheduled again": (
        lambda evidence: with_step(evidence, scheduled_after=1),
        {"steps_executed_again": 1},
    ),
    "a step was executed again": (lambda evidence: add_late_execution(evidence, 0.001), {"steps_executed_again": 1}),
    "an answer was paid again": (
        lambda evidence: add_call(evidence, repeat_call(evidence, 1, state=CallState.INTERRUPTED)),
        {"answers_paid_again": 1},
    ),
    "an answer was paid again, and the record counts it as a usual call": (
        lambda evidence: add_call(evidence, repeat_call(evidence, 1, execution_id="of another dispatch")),
        {"answers_paid_again": 1, "unnamed_tokens": first_call(samples.evidence()).usage.input_tokens + 50},  # type: ignore[operator]
    ),
    "a token more was billed than reported": (
        lambda evidence: replace(
            evidence,
            bill=[{**evidence.bill[0], "output_tokens": evidence.bill[0]["output_tokens"] + 1}, *evidence.bill[1:]],
        ),
        {"unexplained_tokens": 1, "unnamed_tokens": 1},
    ),
    "a request was billed that no task made": (
        lambda evidence: replace(
            evidence, bill=[*evidence.bill, samples.row(first_call(evidence), 99, request_digest="other")]
        ),
        {"unexplained_tokens": 0, "unnamed_tokens": 0, "other_requests": 1},
    ),
    "the model received another request than without faults": (
        lambda evidence: replace(
            evidence,
            bill=[{**evidence.bill[0], "request_digest": evidence.bill[1]["request_digest"]}, *evidence.bill[1:]],
        ),
        {"other_requests": 1},
    ),
    "the ledger differs from its sources": (
        lambda evidence: replace(evidence, ledger=("task x: a charge is gone",)),
        {"ledger_differences": 1},
    ),
}
