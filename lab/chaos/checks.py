"""What must be zero: each check counts what it found, and says of what. Pure.

A *completed step* is one whose completion is in the workflow's history. Until then a sidecar that dies, or loses its
scheduler, has no proof that the step was worked, and hands it out again: such a repetition is counted apart, and its
model call is answered by the journal. From then on, nobody may work it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.models import CallState
from app.pricing.charge_types import CallRecord
from lab.chaos.evidence import Evidence, Execution, Row, StepSeen
from lab.chaos.load import Expected

_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """One thing that must not happen. `count` is how often it did; `found` names the first of them."""

    key: str
    title: str
    count: int
    found: tuple[str, ...] = ()


def checks(evidence: Evidence) -> tuple[Check, ...]:
    """All that is told by books, histories and journal; what the bill tells is in `tokens.py`."""
    return (
        _check("tasks_lost", "tasks lost", _lost(evidence)),
        *_book("refunds", evidence, evidence.books.refunds, _refund_due, _refund_posted),
        *_book("bookkeeping", evidence, evidence.books.bookkeeping, _refund_due, _refund_posted),
        *_book("notifications", evidence, evidence.books.notifications, _one_due, _one_sent),
        *_book("cases", evidence, evidence.books.cases, _case_due, _case_closed),
        _check("steps_completed_twice", "steps completed more than once", _completed_twice(evidence)),
        _check("steps_other", "tasks of other steps than expected", _other_steps(evidence)),
        _check("steps_executed_again", "completed steps executed again", executed_again(evidence)),
        _check("answers_paid_again", "settled model answers paid again", map(_call_told, paid_again(evidence.calls))),
        _check("ledger_differences", "differences that `ledger check` finds", evidence.ledger),
    )


def paid_again(calls: Iterable[CallRecord]) -> tuple[CallRecord, ...]:
    """Model calls of a task's stage and turn that were begun when its answer was already there."""
    turns: defaultdict[tuple[str, str, int], list[CallRecord]] = defaultdict(list)
    for call in calls:
        turns[call.task_id, call.stage, call.turn].append(call)
    return tuple(call for turn in turns.values() for call in _too_late(turn))


def answered_again(evidence: Evidence) -> tuple[CallRecord, ...]:
    """The settled calls of steps that were begun once more when the answer was there, one for each such execution: what
    the journal answered, or, where it is silent, what was paid again."""
    settled = {call.execution_id: call for call in evidence.calls if call.state is CallState.SETTLED}
    found = ((execution, settled.get(execution.execution_id)) for execution in evidence.executions)
    return tuple(call for each, call in found if call and call.ended_at and each.started_at > call.ended_at)


def executed_again(evidence: Evidence) -> Iterator[str]:
    """Schedules and executions of steps whose completion was in the history."""
    for task in evidence.tasks.values():
        for step in task.steps:
            if step.scheduled_after:
                yield f"{task.task_id}: {step.name} was scheduled {step.scheduled_after} times after it was completed"
    for each, step in _worked(evidence):
        if step.saved_by is not None and each.started_at > step.saved_by:
            yield _execution_told(each, step)


def handed_out_twice(evidence: Evidence) -> int:
    """Executions that began when the result was there, and before it was in the history."""
    return sum(
        step.reported_at is not None
        and each.started_at > step.reported_at
        and (step.saved_by is None or each.started_at <= step.saved_by)
        for each, step in _worked(evidence)
    )


def _check(key: str, title: str, found: Iterable[str]) -> Check:
    told = tuple(found)
    return Check(key, title, len(told), told[:_SHOWN])


def _lost(evidence: Evidence) -> Iterator[str]:
    for ticket in evidence.tickets:
        task = evidence.tasks.get(ticket.task_id)
        if ticket.task_id not in evidence.accepted:
            yield f"{ticket.task_id}: never accepted"
        elif task is None:
            yield f"{ticket.task_id}: accepted, and nobody knows it"
        elif (task.status, task.outcome) != ("completed", ticket.outcome):
            yield (
                f"{ticket.task_id}: {task.status} {task.outcome or 'without outcome'}, not completed {ticket.outcome}"
                f"{'; ' if task.problem else ''}{task.problem}"
            )


def _book(
    name: str,
    evidence: Evidence,
    rows: Sequence[Row],
    due: Callable[[Expected], tuple[object, ...] | None],
    entry: Callable[[Row], tuple[object, ...]],
) -> Iterator[Check]:
    """Missing, doubled, and other entries than the tickets ask for."""
    wanted = {each.ticket.ticket_id: asked for each in evidence.tickets if (asked := due(each)) is not None}
    booked = Counter(str(row["ticket_id"]) for row in rows)
    other = [row for row in rows if wanted.get(str(row["ticket_id"])) != entry(row)]
    yield _check(f"{name}_missing", f"{name} missing", (ticket for ticket in wanted if not booked[ticket]))
    doubled = (f"{ticket}: {count} times" for ticket, count in booked.items() if count > 1)
    yield _check(f"{name}_doubled", f"{name} doubled", doubled)
    told = (f"{row['ticket_id']}: {entry(row)}, not {wanted.get(str(row['ticket_id']))}" for row in other)
    yield _check(f"{name}_wrong", f"{name} that nobody asked for", told)


def _refund_due(each: Expected) -> tuple[object, ...] | None:
    back = each.refund
    return (back.order_id, back.amount, back.currency) if back else None


def _refund_posted(row: Row) -> tuple[object, ...]:
    return (row["order_id"], Decimal(str(row["amount"])), row["currency"])


def _one_due(each: Expected) -> tuple[object, ...]:
    return (each.ticket.customer_id,)


def _one_sent(row: Row) -> tuple[object, ...]:
    return (row["customer_id"],)


def _case_due(each: Expected) -> tuple[object, ...]:
    return (each.outcome, each.refund is not None)


def _case_closed(row: Row) -> tuple[object, ...]:
    return (row["outcome"], row["refund_id"] is not None)


def _completed_twice(evidence: Evidence) -> Iterator[str]:
    for task in evidence.tasks.values():
        for step in task.steps:
            if step.completions > 1:
                yield f"{task.task_id}: {step.name} completed {step.completions} times"


def _other_steps(evidence: Evidence) -> Iterator[str]:
    """One that was begun again finds what its first run did, and may be left with fewer steps."""
    for ticket in evidence.tickets:
        task = evidence.tasks.get(ticket.task_id)
        names = tuple(sorted(step.name for step in task.steps if step.completions)) if task else ()
        fewer = ticket.task_id in evidence.begun_again and not Counter(names) - Counter(ticket.steps)
        if names != ticket.steps and not fewer:
            yield f"{ticket.task_id}: {', '.join(names) or 'none'}"


def _too_late(turn: Sequence[CallRecord]) -> Iterator[CallRecord]:
    settled = sorted(
        (call for call in turn if call.state is CallState.SETTLED), key=lambda run: run.ended_at or run.started_at
    )
    if not settled:
        return
    first = settled[0]
    there_at = first.ended_at or first.started_at
    yield from (call for call in turn if call is not first and call.started_at > there_at)


def _worked(evidence: Evidence) -> Iterator[tuple[Execution, StepSeen]]:
    """Each execution with its step: that of its schedule, whatever name it was handed out under."""
    steps = {
        (task.task_id, event_id): step
        for task in evidence.tasks.values()
        for step in task.steps
        for event_id in step.event_ids
    }
    for execution in evidence.executions:
        if (execution.task_id, execution.event_id) in steps:
            yield execution, steps[execution.task_id, execution.event_id]


def _execution_told(each: Execution, step: StepSeen) -> str:
    return (
        f"{each.task_id}: {step.name} (execution {each.execution_id}, number {each.number}) was begun at "
        f"{each.started_at:%H:%M:%S.%f} by worker {each.worker}; it was in the history at {step.saved_by:%H:%M:%S.%f}"
    )


def _call_told(call: CallRecord) -> str:
    return f"{call.task_id}: {call.stage} turn {call.turn}, call {call.number} at {call.started_at:%H:%M:%S.%f}"
