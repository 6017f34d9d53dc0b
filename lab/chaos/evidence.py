"""The evidence of a run, from which the verdict is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.dapr.history.model import AttemptOutcome, Step, WorkflowRun
from app.finance.reconciliation.by_request import UnattributedRetries
from app.pricing.charge_types import CallRecord
from lab.chaos.load import Expected

Row = Mapping[str, Any]
# A turn is saved about 10 ms after its start, or about 100 ms after an outage.
SAVED_WITHIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class ObservedStep:
    """A step by Dapr's history.

    event_ids: the ids of its schedules. completions: the number of its completions in the history. reported_at: when
    its result reached the sidecar. saved_by: when its completion was certainly in the history, that is, at the start of
    the turn after the one that used it, or `SAVED_WITHIN` after the start of that one. scheduled_after: the number of
    schedules after its completion.
    """

    execution_id: str
    event_ids: tuple[int, ...]
    name: str
    completions: int
    reported_at: datetime | None
    saved_by: datetime | None
    scheduled_after: int


@dataclass(frozen=True, slots=True)
class ObservedTask:
    """A task at the end of the run, by API and history. `problem`: its error, or why the history is unreadable."""

    task_id: str
    status: str
    outcome: str
    steps: tuple[ObservedStep, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """One start of a worker on an attempt of a step, from the execution log."""

    task_id: str
    execution_id: str
    event_id: int
    number: int
    worker: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ObservedWorker:
    """A worker process, as it registered itself in the ledger."""

    worker: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Books:
    """All rows of the sandbox's books. `bookkeeping` learns of refunds by events."""

    refunds: Sequence[Row] = ()
    bookkeeping: Sequence[Row] = ()
    notifications: Sequence[Row] = ()
    cases: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """A process that was killed and restarted as planned, with its times."""

    name: str
    killed_at: datetime
    started_at: datetime
    ready_at: datetime
    alone: bool = True  # no other process was killed at the same time


@dataclass(frozen=True)
class Evidence:
    """The evidence of one run. `bill` is the provider's, with a row for each request; `calls`, `executions` and
    `workers` come from our ledger.

    accepted: the tasks whose ticket the agent accepted. restarts: planned restarts. unplanned_restarts: by process, the
    restarts after it ended by itself. frozen: freezes by process. restarted_tasks: tasks that the agent restarted
    because Dapr had rejected their run. ledger: the differences that `ledger check` reported. spent, wasted: money by
    currency, and the part of it that was wasted. seconds: from the first ticket to the end of the last task.
    """

    tickets: tuple[Expected, ...]
    accepted: frozenset[str]
    tasks: Mapping[str, ObservedTask]
    books: Books
    bill: Sequence[Row]
    calls: tuple[CallRecord, ...]
    unattributed: tuple[UnattributedRetries, ...] = ()
    executions: tuple[Execution, ...] = ()
    workers: tuple[ObservedWorker, ...] = ()
    restarts: tuple[Restart, ...] = ()
    frozen: Mapping[str, int] = field(default_factory=dict)
    unplanned_restarts: Mapping[str, int] = field(default_factory=dict)
    restarted_tasks: frozenset[str] = frozenset()
    ledger: tuple[str, ...] = ()
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    wasted: Mapping[str, Decimal] = field(default_factory=dict)
    seconds: float = 0.0


def observe_steps(run: WorkflowRun, events: Sequence[Any]) -> tuple[ObservedStep, ...]:
    """The steps of a run. `events` is the history that `run` was parsed from."""
    completions = Counter(event.taskCompleted.taskScheduledId for event in events if event.HasField("taskCompleted"))
    saved = _save_times(events)
    return tuple(_observe_step(step, completions, saved) for step in run.steps)


def _observe_step(step: Step, completions: Counter[int], saved: Mapping[int, datetime]) -> ObservedStep:
    done = next((attempt for attempt in step.attempts if attempt.outcome is AttemptOutcome.COMPLETED), None)
    return ObservedStep(
        execution_id=step.execution_id,
        event_ids=tuple(attempt.event_id for attempt in step.attempts),
        name=step.name,
        completions=sum(completions[attempt.event_id] for attempt in step.attempts),
        reported_at=done.ended_at if done else None,
        saved_by=saved.get(done.event_id) if done else None,
        scheduled_after=sum(attempt.number > done.number for attempt in step.attempts) if done else 0,
    )


def _save_times(events: Sequence[Any]) -> dict[int, datetime]:
    """By id of the schedule, the time at which its completion was certainly in the history.

    A completion comes after the start of the turn that used it. That need not be the first turn after the result was
    reported, since a turn may have been under way already.
    """
    turns = [event.timestamp.ToDatetime(UTC) for event in events if event.HasField("workflowStarted")]
    saved: dict[int, datetime] = {}
    number = 0
    for event in events:
        number += event.HasField("workflowStarted")
        if event.HasField("taskCompleted") and number:
            by = min([turns[number - 1] + SAVED_WITHIN, *turns[number : number + 1]])
            saved.setdefault(event.taskCompleted.taskScheduledId, by)
    return saved
