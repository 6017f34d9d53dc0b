"""What the ledger gets back from a history that it lacks: the ticket without its texts, the journal's rows, where the
task stands; and a record without a history, of a task that has ended and was purged before anybody recorded it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from app.dapr.history.model import Failure, Payload, RunStatus, Step, WorkflowRun
from app.domain.models import CallState, ModelUse, Reference, TaskStatus, TenantId, TicketId, UsageBasis, task_id
from app.domain.standing import Standing
from app.ledger.store.call_rows import call_row, oldest_first
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.standings import standing_in
from app.ledger.store.tables import MODEL_CALLS, TASKS, TICKETS
from app.ledger.store.tickets import NO_DIGEST
from app.pricing.charge_types import NOT_REPORTED, CallRecord, TokenUsage, usage_of

# Model calls that a history proves and the journal lacks: a ledger that was restored from an older backup.
#
# A step's result carries what its model call used (`ModelUse`). Which provider it was, the history does not say.

_CALLS = uuid.UUID("0c5b2f0e-6a36-5a57-8a55-6f3f5d1a7c11")
_OPEN = frozenset({CallState.STARTED, CallState.INTERRUPTED})


def proven_calls(run: WorkflowRun, calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """The rows that the journal should have: new ones, and those of `calls` that it holds as open or in vain although
    their answer stands in the history."""
    settled = {call.execution_id for call in calls if call.state is CallState.SETTLED}
    return tuple(_proven(run, calls, settled))


def with_proven(run: WorkflowRun, calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """All calls of a run."""
    proven = {call.call_id: call for call in proven_calls(run, calls)}
    return oldest_first((*(call for call in calls if call.call_id not in proven), *proven.values()))


def _proven(run: WorkflowRun, calls: Sequence[CallRecord], settled: set[str]) -> Iterator[CallRecord]:
    for step in run.steps:
        if step.execution_id not in settled and not step.last.inherited:
            use = _use(step)
            if use is not None:
                yield _call(run, step, use, [call for call in calls if call.execution_id == step.execution_id])


def _use(step: Step) -> ModelUse | None:
    result = step.last.result
    if result is None or "answered_by" not in result.text:  # most results are a tool's; parsing them takes longer
        return None
    value = result.json()
    try:
        return ModelUse.model_validate(value.get("use")) if isinstance(value, dict) else None
    except ValidationError:
        return None


def _call(run: WorkflowRun, step: Step, use: ModelUse, known: Sequence[CallRecord]) -> CallRecord:
    """One that the journal has begun is taken as the one that was answered; the last, since it answered the step."""
    turn = _turn(step)
    usage = usage_of(use.model_dump())
    answered: dict[str, Any] = {
        "state": CallState.SETTLED,
        "model": use.model,
        "usage": usage,
        "ended_at": step.last.ended_at,
        "error": "",
    }
    begun = [
        call for call in known if call.turn == turn and call.state in _OPEN and call.usage in (usage, NOT_REPORTED)
    ]
    if begun:
        return replace(_likeliest(begun, usage), **answered)
    return CallRecord(
        call_id=str(uuid.uuid5(_CALLS, f"{step.execution_id}|{turn}")),
        task_id=run.instance_id,
        tenant=run.instance_id.partition(":")[0],
        execution_id=step.execution_id,
        stage=step.name,
        turn=turn,
        number=1 + max((call.number for call in known), default=0),
        worker="",
        component=use.component,
        provider="",
        prompt_version=use.prompt_version,
        request_digest=use.request_digest,
        started_at=step.last.scheduled_at,
        reserve_input=use.input_tokens or 0,
        reserve_output=use.output_tokens or 0,
        **answered,
    )


def _likeliest(begun: Sequence[CallRecord], usage: TokenUsage) -> CallRecord:
    return next((call for call in reversed(begun) if call.usage == usage), begun[-1])


def _turn(step: Step) -> int:
    turn = step.input.at("turn") if step.input else None
    return turn if isinstance(turn, int) else 1


def told(call: CallRecord) -> str:
    """A call in words, for a difference."""
    if call.usage.basis is UsageBasis.UNREPORTED:
        return f"{call.model}, tokens that nobody reported"
    return f"{call.model}, {call.usage.input_tokens} tokens in, {call.usage.output_tokens} out"


_THESE = TICKETS.c.task_id.in_(bindparam("ids", expanding=True))
_STARTED = update(TICKETS).where(_THESE, TICKETS.c.started.is_(False)).values(started=True)
# What histories say of tasks that have ended is better than whatever was told, earlier or later.
_TELL_AGAIN = update(TICKETS).where(_THESE).values(stood_at=None, caveat="")
_ENDED_UNRECORDED = (
    select(TICKETS)
    .where(_THESE, TICKETS.c.recorded.is_(False))
    .where(TICKETS.c.status.in_([status.value for status in TaskStatus if status.ended]))
    .where(TICKETS.c.task_id.not_in(select(TASKS.c.task_id)))
)
_STATUSES = {
    TaskStatus.COMPLETED: RunStatus.COMPLETED,
    TaskStatus.FAILED: RunStatus.FAILED,
    TaskStatus.TERMINATED: RunStatus.TERMINATED,
}


class _Started(BaseModel):
    """What a task's workflow was started with; its rules do not matter here."""

    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference | None


def ticket_of(run: WorkflowRun) -> Mapping[str, Any] | None:
    """The row of the ticket that a run was started for; None for another workflow's run."""
    try:
        started = _Started.model_validate_json(run.input.text if run.input else "")
    except ValidationError:
        return None
    if task_id(started.tenant, started.ticket_id) != run.instance_id or run.started_at is None:
        return None
    return {
        **started.model_dump(),
        "task_id": run.instance_id,
        "digest": NO_DIGEST,
        "subject": "",
        "text": "",
        "received_at": run.started_at,
        "started": True,
        "recorded": False,
        "status": TaskStatus.RUNNING.value,
        "stood_at": None,
        "standing": "{}",
        "caveat": "",
    }


def keep_tickets(connection: Connection, runs: Iterable[WorkflowRun]) -> None:
    """Makes the tickets that are not there, and notes of the others that their tasks were started."""
    rows = [row for run in sorted(runs, key=_began) if (row := ticket_of(run)) is not None]
    for row in rows:  # in the order in which they were started: lists are in the order of arrival
        connection.execute(insert_or_ignore(connection, TICKETS), row)
    connection.execute(_STARTED, {"ids": [row["task_id"] for row in rows]})


def keep_calls(connection: Connection, calls: Sequence[CallRecord]) -> None:
    """Writes rows of the journal, in the place of those of the same id."""
    if calls:
        connection.execute(delete(MODEL_CALLS).where(MODEL_CALLS.c.call_id.in_([call.call_id for call in calls])))
        connection.execute(insert(MODEL_CALLS), [call_row(call) for call in calls])


def tell_again(connection: Connection, task_ids: Sequence[str]) -> None:
    """Lets what is told next of these tasks count, whenever it was."""
    connection.execute(_TELL_AGAIN, {"ids": list(task_ids)})


def ended_without_history(connection: Connection, task_ids: Sequence[str]) -> dict[str, WorkflowRun]:
    """Of these tasks, whose histories are gone, those that have ended as their worker told, and have no record."""
    rows = connection.execute(_ENDED_UNRECORDED, {"ids": list(task_ids)}).mappings()
    return {row["task_id"]: _run(row["task_id"], row["received_at"], standing_in(row)) for row in rows}


def _run(task: str, received_at: datetime, standing: Standing) -> WorkflowRun:
    """What is known of such a task: how it ended. What its model calls cost stands in the journal; the time and the
    writes of its steps are not known any more."""
    result = standing.result
    return WorkflowRun(
        instance_id=task,
        name="",
        status=_STATUSES[standing.status],
        started_at=received_at,
        ended_at=max(received_at, standing.at or received_at),
        output=Payload(result.model_dump_json()) if result else None,
        failure=Failure("", standing.error) if standing.error else None,
    )


def _began(run: WorkflowRun) -> float:
    return run.started_at.timestamp() if run.started_at else 0.0
