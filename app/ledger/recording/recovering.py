"""Restores rows that the ledger lacks.

From Dapr's history: tickets (without their texts) and journal rows, which an older backup does not have. From the
ledger alone: the run of a task that ended and whose history was purged before it was recorded.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
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
from app.pricing.charge_types import NOT_REPORTED, CallRecord, usage_of

_CALL_IDS = uuid.UUID("0c5b2f0e-6a36-5a57-8a55-6f3f5d1a7c11")
_OPEN = frozenset({CallState.STARTED, CallState.INTERRUPTED})


def proven_calls(run: WorkflowRun, calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """The journal rows that the history proves and `calls` (the journal) lacks: new rows, and rows of `calls` that are
    started or interrupted although the history holds their answer. A step's result has the usage of its model call
    (`ModelUse`), but not the provider."""
    settled = {call.execution_id for call in calls if call.state is CallState.SETTLED}
    proven = []
    for step in run.steps:
        if step.execution_id not in settled and not step.last.inherited and (use := _use(step)) is not None:
            step_calls = [call for call in calls if call.execution_id == step.execution_id]
            proven.append(_proven_call(run, step, use, step_calls))
    return tuple(proven)


def with_proven(run: WorkflowRun, calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """All calls of a run: those of the journal, corrected and completed from the history; oldest first."""
    proven = {call.call_id: call for call in proven_calls(run, calls)}
    return oldest_first((*(call for call in calls if call.call_id not in proven), *proven.values()))


def _use(step: Step) -> ModelUse | None:
    result = step.last.result
    if result is None or "answered_by" not in result.text:  # most results are a tool's; parsing them takes longer
        return None
    value = result.json()
    try:
        return ModelUse.model_validate(value.get("use")) if isinstance(value, dict) else None
    except ValidationError:
        return None


def _proven_call(run: WorkflowRun, step: Step, use: ModelUse, step_calls: Sequence[CallRecord]) -> CallRecord:
    """The call that answered the step: the open journal row with the reported usage, else the last open one, else a new
    row."""
    turn = step.input.at("turn") if step.input else None
    turn = turn if isinstance(turn, int) else 1
    usage = usage_of(use.model_dump())
    answered: dict[str, Any] = {
        "state": CallState.SETTLED,
        "model": use.model,
        "usage": usage,
        "ended_at": step.last.ended_at,
        "error": "",
    }
    candidates = [
        call for call in step_calls if call.turn == turn and call.state in _OPEN and call.usage in (usage, NOT_REPORTED)
    ]
    if candidates:
        same_usage = (call for call in reversed(candidates) if call.usage == usage)
        return replace(next(same_usage, candidates[-1]), **answered)
    return CallRecord(
        call_id=str(uuid.uuid5(_CALL_IDS, f"{step.execution_id}|{turn}")),
        task_id=run.instance_id,
        tenant=run.instance_id.partition(":")[0],
        execution_id=step.execution_id,
        stage=step.name,
        turn=turn,
        number=1 + max((call.number for call in step_calls), default=0),
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


def describe_call(call: CallRecord) -> str:
    """A call's model and tokens, for the message of a difference."""
    if call.usage.basis is UsageBasis.UNREPORTED:
        return f"{call.model}, tokens not reported"
    return f"{call.model}, {call.usage.input_tokens} tokens in, {call.usage.output_tokens} out"


_OF_TASKS = TICKETS.c.task_id.in_(bindparam("ids", expanding=True))
_STARTED = update(TICKETS).where(_OF_TASKS, TICKETS.c.started.is_(False)).values(started=True)
_RESET_STANDINGS = update(TICKETS).where(_OF_TASKS).values(stood_at=None, caveat="")
_ENDED_UNRECORDED = (
    select(TICKETS)
    .where(_OF_TASKS, TICKETS.c.recorded.is_(False))
    .where(TICKETS.c.status.in_([status.value for status in TaskStatus if status.ended]))
    .where(TICKETS.c.task_id.not_in(select(TASKS.c.task_id)))
)
_STATUSES = {
    TaskStatus.COMPLETED: RunStatus.COMPLETED,
    TaskStatus.FAILED: RunStatus.FAILED,
    TaskStatus.TERMINATED: RunStatus.TERMINATED,
}


class _RunInput(BaseModel):
    """The part of a workflow's input that identifies its ticket."""

    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference | None


def ticket_of(run: WorkflowRun) -> Mapping[str, Any] | None:
    """The `tickets` row of the ticket that a run was started for, without texts; None for a run of another workflow."""
    try:
        ticket = _RunInput.model_validate_json(run.input.text if run.input else "")
    except ValidationError:
        return None
    if task_id(ticket.tenant, ticket.ticket_id) != run.instance_id or run.started_at is None:
        return None
    return {
        **ticket.model_dump(),
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
    """Inserts the tickets that the ledger lacks, and marks the others as started."""
    rows = [row for run in sorted(runs, key=_start_seconds) if (row := ticket_of(run)) is not None]
    for row in rows:  # in the order of their starts, because lists are in the order of arrival
        connection.execute(insert_or_ignore(connection, TICKETS), row)
    connection.execute(_STARTED, {"ids": [row["task_id"] for row in rows]})


def keep_calls(connection: Connection, calls: Sequence[CallRecord]) -> None:
    """Writes journal rows; a row with the same call id is replaced."""
    if calls:
        connection.execute(delete(MODEL_CALLS).where(MODEL_CALLS.c.call_id.in_([call.call_id for call in calls])))
        connection.execute(insert(MODEL_CALLS), [call_row(call) for call in calls])


def reset_standings(connection: Connection, task_ids: Sequence[str]) -> None:
    """Forgets at which turn these tasks stood, so that the next standing is saved whatever its time. For tasks that
    have ended: their histories are more reliable than what workers reported."""
    connection.execute(_RESET_STANDINGS, {"ids": list(task_ids)})


def ended_without_history(connection: Connection, task_ids: Sequence[str]) -> dict[str, WorkflowRun]:
    """The runs, by task id, of those of these tasks that have ended according to their worker and have no record. Their
    histories are gone."""
    rows = connection.execute(_ENDED_UNRECORDED, {"ids": list(task_ids)}).mappings()
    return {row["task_id"]: _purged_run(row["task_id"], row["received_at"], standing_in(row)) for row in rows}


def _purged_run(task: str, received_at: datetime, standing: Standing) -> WorkflowRun:
    """A run that only says how the task ended. The journal has the cost of its model calls; time and writes of its
    steps are unknown."""
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


def _start_seconds(run: WorkflowRun) -> float:
    return run.started_at.timestamp() if run.started_at else 0.0
