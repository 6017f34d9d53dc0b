"""From a run's steps and what workers wrote ahead of them to the steps of the record. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.dapr.history.executions import Begun, Execution, executions, idle
from app.dapr.history.history_values import AttemptOutcome
from app.dapr.history.model import Attempt, Step, WorkflowRun
from app.dapr.history.times import Idle, Share
from app.domain.models import AnsweredBy
from app.ledger.store.task_record import AttemptRecord, StepRecord
from app.pricing.call_record import CallRecord

_ANSWERERS = frozenset(AnsweredBy)
_NOTHING = timedelta(0)

Executions = Mapping[int, tuple[Execution, ...]]


@dataclass(frozen=True)
class Written:
    """What workers wrote ahead for one task: of model calls, and of executions."""

    calls: Sequence[CallRecord] = ()
    begun: Sequence[Begun] = ()


def executions_of(run: WorkflowRun, begun: Iterable[Begun], at: datetime) -> Executions:
    """The executions of each attempt that any are known of, by the schedule's event id."""
    of: defaultdict[tuple[str, int], list[Begun]] = defaultdict(list)
    for each in begun:
        of[each.execution_id, each.event_id].append(each)
    until = run.ended_at or at
    found = ((step.execution_id, attempt) for step in run.steps for attempt in step.attempts if not attempt.inherited)
    return {
        attempt.event_id: executions(attempt, of[execution_id, attempt.event_id], until)
        for execution_id, attempt in found
        if (execution_id, attempt.event_id) in of
    }


def idle_of(found: Executions) -> Idle:
    """When nobody worked at an attempt."""
    return {event_id: gaps for event_id, each in found.items() if (gaps := tuple(idle(each)))}


def step_records(
    run: WorkflowRun,
    stage_of: Mapping[str, str],
    calls: Sequence[CallRecord],
    active: Mapping[Share, timedelta],
    found: Executions,
) -> tuple[StepRecord, ...]:
    """The steps of the history, and those that only the journal knows any more."""
    steps = tuple(_step(number, step, stage_of, calls, active, found) for number, step in enumerate(run.steps, start=1))
    return steps + tuple(_unseen(calls, steps))


def _step(
    number: int,
    step: Step,
    stage_of: Mapping[str, str],
    calls: Sequence[CallRecord],
    active: Mapping[Share, timedelta],
    found: Executions,
) -> StepRecord:
    answered = _answered_by(step)
    asks_a_model = answered is not None or any(call.execution_id == step.execution_id for call in calls)
    own = [attempt for attempt in step.attempts if not attempt.inherited]
    lost = active.get((step.execution_id, True), _NOTHING)
    return StepRecord(
        step=number,
        execution_id=step.execution_id,
        name=step.name,
        stage=stage_of.get(step.name, step.name),
        tool="" if asks_a_model else step.name,
        active=active.get((step.execution_id, False), _NOTHING) + lost,
        lost=lost,
        writes=sum(map(_writes, own)),
        attempts=tuple(_attempt(attempt, found.get(attempt.event_id, ())) for attempt in step.attempts),
        answered_by=answered,
    )


def _writes(attempt: Attempt) -> int:
    return 1 + (attempt.ended_at is not None)


def _unseen(calls: Sequence[CallRecord], steps: Sequence[StepRecord]) -> Iterator[StepRecord]:
    """Steps that the history does not hold any more, although the journal knows what they paid: no charge is lost."""
    seen = {step.execution_id for step in steps}
    names = {call.execution_id: call.stage for call in calls if call.execution_id not in seen}
    for number, (execution_id, stage) in enumerate(names.items(), start=len(steps) + 1):
        yield StepRecord(number, execution_id, stage, stage, "", _NOTHING, _NOTHING, 0, ())


def _answered_by(step: Step) -> AnsweredBy | None:
    """What the step's result says of its model call."""
    result = step.last.result
    if result is None or "answered_by" not in result.text:  # most results are a tool's; parsing them takes longer
        return None
    said = result.at("use", "answered_by")
    return AnsweredBy(said) if isinstance(said, str) and said in _ANSWERERS else None


def _attempt(attempt: Attempt, found: tuple[Execution, ...]) -> AttemptRecord:
    failure = attempt.failure.root if attempt.failure else None
    # PostgreSQL keeps no NUL in a text.
    error = f"{failure.type}: {failure.message}".replace("\0", "\N{REPLACEMENT CHARACTER}") if failure else ""
    return AttemptRecord(
        attempt.number, attempt.scheduled_at, attempt.ended_at, attempt.outcome, error, attempt.event_id, found
    )


def vain_writes(step: StepRecord) -> int:
    """The events that attempts left in the history that failed."""
    return 2 * sum(attempt.outcome is AttemptOutcome.FAILED for attempt in step.attempts)
