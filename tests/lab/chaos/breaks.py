"""One thing at a time goes wrong in good evidence: helpers, and every break that the verdict must find by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.domain.models import CallState, UsageBasis
from app.pricing.charge_types import CallRecord, TokenUsage
from lab.chaos.evidence import Evidence, Execution, StepSeen
from tests.lab.chaos import evidence as made

Break = Callable[[Evidence], Evidence]
REFUND, GREEDY = made.named("refund"), made.named("greedy")


def with_books(found: Evidence, **books: Any) -> Evidence:
    return replace(found, books=replace(found.books, **books))


def with_step(found: Evidence, **changes: Any) -> Evidence:
    """The first step of the refund is otherwise."""
    task = found.tasks[REFUND.task_id]
    steps = (replace(task.steps[0], **changes), *task.steps[1:])
    return replace(found, tasks={**found.tasks, REFUND.task_id: replace(task, steps=steps)})


def with_task(found: Evidence, **changes: Any) -> Evidence:
    task = found.tasks[REFUND.task_id]
    return replace(found, tasks={**found.tasks, REFUND.task_id: replace(task, **changes)})


def first_step(found: Evidence) -> StepSeen:
    return found.tasks[REFUND.task_id].steps[0]


def begun_late(found: Evidence, seconds: float) -> Evidence:
    """The first step of the refund is begun once more, so long after its completion was in the history."""
    step = first_step(found)
    assert step.saved_by is not None
    again = Execution(
        REFUND.task_id, step.execution_id, step.event_ids[0], 2, "w-2", step.saved_by + timedelta(seconds=seconds)
    )
    return replace(found, executions=(*found.executions, again))


def first_call(found: Evidence) -> CallRecord:
    return next(call for call in found.calls if call.task_id == REFUND.task_id)


def again(found: Evidence, seconds: float, **changes: Any) -> CallRecord:
    """The first call of the refund once more, so long after its answer came."""
    call = first_call(found)
    assert call.ended_at is not None
    times: dict[str, Any] = {"started_at": call.ended_at + timedelta(seconds=seconds), "number": 2, "call_id": "again"}
    times["ended_at"] = call.ended_at + timedelta(seconds=seconds + 0.2)
    return replace(call, **times | changes)


def repeated(found: Evidence, call: CallRecord, **row: Any) -> Evidence:
    """That call stands in the journal and on the bill as well."""
    digest = first_call(found).request_digest
    billed = made.row(call, len(found.bill) + 1, **{"request_digest": digest} | row)
    return replace(found, calls=(*found.calls, call), bill=(*found.bill, billed))


def interrupted(found: Evidence) -> Evidence:
    """A worker died while a call was under way, before the one that settled its turn: billed, and known to be lost."""
    call = first_call(found)
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
    calls = tuple(settled if each is call else each for each in found.calls)
    billed = made.row(lost, 99, output_tokens=call.usage.output_tokens, status=0)
    return replace(found, calls=(lost, *calls), bill=(billed, *found.bill))


# What is broken, and what is found of it: how often, by the check's key; 0 where the number does not matter.
BREAKS: dict[str, tuple[Break, dict[str, int]]] = {
    "a ticket was never accepted": (
        lambda found: replace(found, accepted=found.accepted - {REFUND.task_id}),
        {"tasks_lost": 1},
    ),
    "a task is not there": (
        lambda found: replace(found, tasks={key: task for key, task in found.tasks.items() if key != REFUND.task_id}),
        {"tasks_lost": 1, "steps_other": 1},
    ),
    "a task never ended": (lambda found: with_task(found, status="running", outcome=""), {"tasks_lost": 1}),
    "a task ended otherwise": (lambda found: with_task(found, outcome="declined"), {"tasks_lost": 1}),
    "a task was ended by force": (lambda found: with_task(found, status="terminated"), {"tasks_lost": 1}),
    "a refund is missing": (lambda found: with_books(found, refunds=[]), {"refunds_missing": 1}),
    "a refund is doubled": (
        lambda found: with_books(found, refunds=[*found.books.refunds, made.refund(REFUND)]),
        {"refunds_doubled": 1},
    ),
    "a refund is of another amount": (
        lambda found: with_books(found, refunds=[made.refund(REFUND) | {"amount": "20.01"}]),
        {"refunds_wrong": 1},
    ),
    "a refund is of another order": (
        lambda found: with_books(found, refunds=[made.refund(REFUND) | {"order_id": "LD-00000009"}]),
        {"refunds_wrong": 1},
    ),
    "the bookkeeping never heard of a refund": (
        lambda found: with_books(found, bookkeeping=[]),
        {"bookkeeping_missing": 1},
    ),
    "the bookkeeping heard of a refund twice": (
        lambda found: with_books(found, bookkeeping=[*found.books.bookkeeping, made.refund(REFUND)]),
        {"bookkeeping_doubled": 1},
    ),
    "the bookkeeping heard of another amount": (
        lambda found: with_books(found, bookkeeping=[made.refund(REFUND) | {"amount": "2.00"}]),
        {"bookkeeping_wrong": 1},
    ),
    "a rejected ticket is refunded": (
        lambda found: with_books(
            found, refunds=[*found.books.refunds, made.refund(REFUND) | {"ticket_id": GREEDY.ticket.ticket_id}]
        ),
        {"refunds_wrong": 1},
    ),
    "a letter is missing": (
        lambda found: with_books(found, notifications=found.books.notifications[1:]),
        {"notifications_missing": 1},
    ),
    "a letter is doubled": (
        lambda found: with_books(found, notifications=[*found.books.notifications, made.notification(REFUND)]),
        {"notifications_doubled": 1},
    ),
    "a letter went to somebody else": (
        lambda found: with_books(
            found, notifications=[{**each, "customer_id": "load-00000077"} for each in found.books.notifications]
        ),
        {"notifications_wrong": 3},
    ),
    "a case is not closed": (lambda found: with_books(found, cases=found.books.cases[1:]), {"cases_missing": 1}),
    "a case is closed twice": (
        lambda found: with_books(found, cases=[*found.books.cases, made.case(REFUND)]),
        {"cases_doubled": 1},
    ),
    "a case is closed without its refund": (
        lambda found: with_books(found, cases=[{**each, "refund_id": None} for each in found.books.cases]),
        {"cases_wrong": 1},
    ),
    "a step completed twice": (lambda found: with_step(found, completions=2), {"steps_completed_twice": 1}),
    "a step was left out": (lambda found: with_step(found, completions=0), {"steps_other": 1}),
    "another step was worked": (lambda found: with_step(found, name="close_case"), {"steps_other": 1}),
    "a step was scheduled again": (lambda found: with_step(found, scheduled_after=1), {"steps_executed_again": 1}),
    "a step was executed again": (lambda found: begun_late(found, 0.001), {"steps_executed_again": 1}),
    "an answer was paid again": (
        lambda found: repeated(found, again(found, 1, state=CallState.INTERRUPTED)),
        {"answers_paid_again": 1},
    ),
    "an answer was paid again, and the record takes it for a call like any other": (
        lambda found: repeated(found, again(found, 1, execution_id="of another dispatch")),
        {"answers_paid_again": 1, "unnamed_tokens": first_call(made.evidence()).usage.input_tokens + 50},  # type: ignore[operator]
    ),
    "a token more was billed than reported": (
        lambda found: replace(
            found, bill=[{**found.bill[0], "output_tokens": found.bill[0]["output_tokens"] + 1}, *found.bill[1:]]
        ),
        {"unexplained_tokens": 1, "unnamed_tokens": 1},
    ),
    "a request was billed that nobody made": (
        lambda found: replace(found, bill=[*found.bill, made.row(first_call(found), 99, request_digest="other")]),
        {"unexplained_tokens": 0, "unnamed_tokens": 0, "other_requests": 1},
    ),
    "the model was not asked what it was asked without faults": (
        lambda found: replace(
            found, bill=[{**found.bill[0], "request_digest": found.bill[1]["request_digest"]}, *found.bill[1:]]
        ),
        {"other_requests": 1},
    ),
    "the ledger differs from its sources": (
        lambda found: replace(found, ledger=("task x: a charge is gone",)),
        {"ledger_differences": 1},
    ),
}
