"""The checks of a run whose counts must be zero.

A *completed step* is one whose completion is in the workflow's history. Before that, a sidecar that dies or loses its
scheduler does not know that the step was done, and hands it out again. Such a repetition is counted separately, and the
journal answers its model call. A completed step must never be executed again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.models import CallState
from app.pricing.charge_types import CallRecord
from lab.chaos.evidence import Evidence, Execution, ObservedStep, Row
from lab.chaos.load import Expected

_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """One kind of fault: how often it occurred, and a description of the first occurrences."""

    key: str
    title: str
    count: int
    examples: tuple[str, ...] = ()


def checks(evidence: Evidence) -> tuple[Check, ...]:
    """All checks of books, histories and journal. `tokens.py` has those of the bill."""
    return (
        _check("tasks_lost", "tasks lost", _lost_tasks(evidence)),
        *_check_book("refunds", evidence, evidence.books.refunds, _expected_refund, _refund_entry),
        *_check_book("bookkeeping", evidence, evidence.books.bookkeeping, _expected_refund, _refund_entry),
        *_check_book("notifications", evidence, evidence.books.notifications, _expected_letter, _letter_entry),
        *_check_book("cases", evidence, evidence.books.cases, _expected_case, _case_entry),
        _check("steps_completed_twice", "steps completed more than once", _completed_twice(evidence)),
        _check("steps_other", "tasks with other steps than expected", _other_steps(evidence)),
        _check("steps_executed_again", "completed steps executed again", repeated_completed_steps(evidence)),
        _check(
            "answers_paid_again",
            "settled model answers paid again",
            map(_describe_call, find_paid_again(evidence.calls)),
        ),
        _check("ledger_differences", "differences that `ledger check` reports", evidence.ledger),
    )


def find_paid_again(calls: Iterable[CallRecord]) -> tuple[CallRecord, ...]:
    """Model calls that started after the answer of the same task, stage and turn had arrived."""
    turns: defaultdict[tuple[str, str, int], list[CallRecord]] = defaultdict(list)
    for call in calls:
        turns[call.task_id, call.stage, call.turn].append(call)
    return tuple(call for turn in turns.values() for call in _late_calls(turn))


def find_repeated_answers(evidence: Evidence) -> tuple[CallRecord, ...]:
    """For each execution that started after its step's call was settled, that call. With the journal, the execution
    received this answer from it; without, the answer was paid again."""
    settled = {call.execution_id: call for call in evidence.calls if call.state is CallState.SETTLED}
    pairs = ((execution, settled.get(execution.execution_id)) for execution in evidence.executions)
    return tuple(call for execution, call in pairs if call and call.ended_at and execution.started_at > call.ended_at)


def repeated_completed_steps(evidence: Evidence) -> Iterator[str]:
    """Schedules and executions of completed steps."""
    for task in evidence.tasks.values():
        for step in task.steps:
            if step.scheduled_after:
                yield f"{task.task_id}: {step.name} was scheduled {step.scheduled_after} times after it was completed"
    for execution, step in _executions_with_steps(evidence):
        if step.saved_by is not None and execution.started_at > step.saved_by:
            yield _describe_execution(execution, step)


def count_unsaved_repeats(evidence: Evidence) -> int:
    """Executions that started after the sidecar had the step's result and before it was in the history."""
    return sum(
        step.reported_at is not None
        and execution.started_at > step.reported_at
        and (step.saved_by is None or execution.started_at <= step.saved_by)
        for execution, step in _executions_with_steps(evidence)
    )


def _check(key: str, title: str, descriptions: Iterable[str]) -> Check:
    occurrences = tuple(descriptions)
    return Check(key, title, len(occurrences), occurrences[:_SHOWN])


def _lost_tasks(evidence: Evidence) -> Iterator[str]:
    for ticket in evidence.tickets:
        task = evidence.tasks.get(ticket.task_id)
        if ticket.task_id not in evidence.accepted:
            yield f"{ticket.task_id}: never accepted"
        elif task is None:
            yield f"{ticket.task_id}: accepted, but the agent does not know it"
        elif (task.status, task.outcome) != ("completed", ticket.outcome):
            yield (
                f"{ticket.task_id}: {task.status} {task.outcome or 'without outcome'}, not completed {ticket.outcome}"
                f"{'; ' if task.problem else ''}{task.problem}"
            )


def _check_book(
    name: str,
    evidence: Evidence,
    rows: Sequence[Row],
    expected: Callable[[Expected], tuple[object, ...] | None],
    entry: Callable[[Row], tuple[object, ...]],
) -> Iterator[Check]:
    """Checks for missing, doubled and wrong entries. `expected` gives the entry of a ticket, if any."""
    due = {t.ticket.ticket_id: values for t in evidence.tickets if (values := expected(t)) is not None}
    booked = Counter(str(row["ticket_id"]) for row in rows)
    wrong = [row for row in rows if due.get(str(row["ticket_id"])) != entry(row)]
    yield _check(f"{name}_missing", f"{name} missing", (ticket for ticket in due if not booked[ticket]))
    doubled = (f"{ticket}: {count} times" for ticket, count in booked.items() if count > 1)
    yield _check(f"{name}_doubled", f"{name} doubled", doubled)
    others = (f"{row['ticket_id']}: {entry(row)}, not {due.get(str(row['ticket_id']))}" for row in wrong)
    yield _check(f"{name}_wrong", f"{name} that no ticket leads to", others)


def _expected_refund(ticket: Expected) -> tuple[object, ...] | None:
    refund = ticket.refund
    return (refund.order_id, refund.amount, refund.currency) if refund else None


def _refund_entry(row: Row) -> tuple[object, ...]:
    return (row["order_id"], Decimal(str(row["amount"])), row["currency"])


def _expected_letter(ticket: Expected) -> tuple[object, ...]:
    return (ticket.ticket.customer_id,)


def _letter_entry(row: Row) -> tuple[object, ...]:
    return (row["customer_id"],)


def _expected_case(ticket: Expected) -> tuple[object, ...]:
    return (ticket.outcome, ticket.refund is not None)


def _case_entry(row: Row) -> tuple[object, ...]:
    return (row["outcome"], row["refund_id"] is not None)


def _completed_twice(evidence: Evidence) -> Iterator[str]:
    for task in evidence.tasks.values():
        for step in task.steps:
            if step.completions > 1:
                yield f"{task.task_id}: {step.name} completed {step.completions} times"


def _other_steps(evidence: Evidence) -> Iterator[str]:
    """A restarted task uses what its first run did, so its last run may have fewer steps."""
    for ticket in evidence.tickets:
        task = evidence.tasks.get(ticket.task_id)
        names = tuple(sorted(step.name for step in task.steps if step.completions)) if task else ()
        fewer = ticket.task_id in evidence.restarted_tasks and not Counter(names) - Counter(ticket.steps)
        if names != ticket.steps and not fewer:
            yield f"{ticket.task_id}: {', '.join(names) or 'none'}"


def _late_calls(turn: Sequence[CallRecord]) -> Iterator[CallRecord]:
    settled = sorted(
        (call for call in turn if call.state is CallState.SETTLED), key=lambda call: call.ended_at or call.started_at
    )
    if not settled:
        return
    first = settled[0]
    answered_at = first.ended_at or first.started_at
    yield from (call for call in turn if call is not first and call.started_at > answered_at)


def _executions_with_steps(evidence: Evidence) -> Iterator[tuple[Execution, ObservedStep]]:
    """Each execution with the step that its schedule belongs to."""
    steps = {
        (task.task_id, event_id): step
        for task in evidence.tasks.values()
        for step in task.steps
        for event_id in step.event_ids
    }
    for execution in evidence.executions:
        if (execution.task_id, execution.event_id) in steps:
            yield execution, steps[execution.task_id, execution.event_id]


def _describe_execution(execution: Execution, step: ObservedStep) -> str:
    return (
        f"{execution.task_id}: {step.name} (execution {execution.execution_id}, number {execution.number}) was started "
        f"at {execution.started_at:%H:%M:%S.%f} by worker {execution.worker}; "
        f"its result was in the history by {step.saved_by:%H:%M:%S.%f}"
    )


def _describe_call(call: CallRecord) -> str:
    return f"{call.task_id}: {call.stage} turn {call.turn}, call {call.number} at {call.started_at:%H:%M:%S.%f}"
