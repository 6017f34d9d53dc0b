"""What a run has left behind, as values: the only thing that a verdict is made from. Pure."""

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
# A turn is saved some ten milliseconds after it began; on a machine that has just been brought back, some hundred.
SAVED_WITHIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class StepSeen:
    """A step, as Dapr's history tells it.

    event_ids: of its schedules. completions: how often a completion of it was persisted. reported_at: when its result
    reached the sidecar. saved_by: when its completion was in the history for sure: the workflow went on with it in one
    turn, and that turn was saved before the next began, or within `SAVED_WITHIN`. scheduled_after: schedules that were
    written although it was completed.
    """

    execution_id: str
    event_ids: tuple[int, ...]
    name: str
    completions: int
    reported_at: datetime | None
    saved_by: datetime | None
    scheduled_after: int


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task at the end of the run: as the API shows it, and its steps. `problem`: why its history cannot be read."""

    task_id: str
    status: str
    outcome: str
    steps: tuple[StepSeen, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """One time that a worker began to work at an attempt of a step."""

    task_id: str
    execution_id: str
    event_id: int
    number: int
    worker: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """One life of the worker, as it wrote itself down."""

    worker: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Books:
    """The books of the outside world: every row with all its columns. `bookkeeping` hears of refunds by events."""

    refunds: Sequence[Row] = ()
    bookkeeping: Sequence[Row] = ()
    notifications: Sequence[Row] = ()
    cases: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """A process that was killed and started again: when it died, and when it was ready again."""

    name: str
    killed_at: datetime
    started_at: datetime
    ready_at: datetime
    alone: bool = True  # nothing else was killed in the same moment


@dataclass(frozen=True)
class Evidence:
    """All of one run. `bill` is the provider's, a row a request; `calls`, `executions` and `workers` are our record's.

    accepted: the tasks whose ticket the agent took in. helped: how often a process had to be started again that
    nobody had killed. frozen: how often each stood still for a while. begun_again: the tasks whose run Dapr gave up for
    no fault of theirs. ledger: what `ledger check` found. spent, wasted:
    money by currency, and what of it was work done again. seconds: from the first ticket until the last task's end.
    """

    tickets: tuple[Expected, ...]
    accepted: frozenset[str]
    tasks: Mapping[str, TaskSeen]
    books: Books
    bill: Sequence[Row]
    calls: tuple[CallRecord, ...]
    unattributed: tuple[UnattributedRetries, ...] = ()
    executions: tuple[Execution, ...] = ()
    workers: tuple[WorkerSeen, ...] = ()
    restarts: tuple[Restart, ...] = ()
    frozen: Mapping[str, int] = field(default_factory=dict)
    helped: Mapping[str, int] = field(default_factory=dict)
    begun_again: frozenset[str] = frozenset()
    ledger: tuple[str, ...] = ()
    spent: Mapping[str, Decimal] = field(default_factory=dict)
    wasted: Mapping[str, Decimal] = field(default_factory=dict)
    seconds: float = 0.0


def steps_seen(run: WorkflowRun, events: Sequence[Any]) -> tuple[StepSeen, ...]:
    """The steps of a history. `events` are those that `run` was read from."""
    completions = Counter(event.taskCompleted.taskScheduledId for event in events if event.HasField("taskCompleted"))
    saved = _saved(events)
    return tuple(_step(step, completions, saved) for step in run.steps)


def _step(step: Step, completions: Counter[int], saved: Mapping[int, datetime]) -> StepSeen:
    done = next((each for each in step.attempts if each.outcome is AttemptOutcome.COMPLETED), None)
    return StepSeen(
        execution_id=step.execution_id,
        event_ids=tuple(attempt.event_id for attempt in step.attempts),
        name=step.name,
        completions=sum(completions[attempt.event_id] for attempt in step.attempts),
        reported_at=done.ended_at if done else None,
        saved_by=saved.get(done.event_id) if done else None,
        scheduled_after=sum(attempt.number > done.number for attempt in step.attempts) if done else 0,
    )


def _saved(events: Sequence[Any]) -> dict[int, datetime]:
    """By schedule, when its completion was in the history for sure. It stands behind the turn that took it in, which
    need not be the first one since it was reported: that one may have been on its way already."""
    turns = [event.timestamp.ToDatetime(UTC) for event in events if event.HasField("workflowStarted")]
    saved: dict[int, datetime] = {}
    number = 0
    for event in events:
        number += event.HasField("workflowStarted")
        if event.HasField("taskCompleted") and number:
            by = min([turns[number - 1] + SAVED_WITHIN, *turns[number : number + 1]])
            saved.setdefault(event.taskCompleted.taskScheduledId, by)
    return saved
