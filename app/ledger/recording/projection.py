"""Computes the record of a task from its run's history, the journal and a price book. The same input gives the same
record.

    WorkflowRun (Dapr's history) ─┐
    Written (journal, executions) ┼─> TaskRecord: steps, attempts, failures, calls, charges
    PriceBook ────────────────────┘

There are charges for each model call that is over, each step that is over and, once the run has ended, the workflow's
own turns and the bytes of its history. Work without a result is charged separately, marked `wasted`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from pydantic import ValidationError

from app.dapr.history.causes import words_of
from app.dapr.history.executions import Execution, StartedExecution, executions, idle, losses_are_certain
from app.dapr.history.model import Attempt, AttemptOutcome, RaisedEvent, RunStatus, Step, WorkflowRun
from app.dapr.history.times import Idle, Share, TimePart, shares, spans
from app.domain import decision_texts
from app.domain.models import (
    AnsweredBy,
    CallState,
    Decision,
    DecisionState,
    DecisionView,
    SettledDecision,
    TaskOutput,
    TaskStatus,
    UsageBasis,
)
from app.ledger.recording.failures import failures
from app.ledger.recording.recovering import with_proven
from app.ledger.store.decision_log import view_of
from app.ledger.store.task_record import AttemptRecord, StepRecord, TaskRecord
from app.pricing.book import PriceBook
from app.pricing.charge_types import UNREPORTED, CallRecord, Charge, Origin, Quantity, Work
from app.pricing.formula import NOTHING, charge_call, charge_work, lost_usage

_ANSWERERS = frozenset(AnsweredBy)
_NOTHING = timedelta(0)

Executions = Mapping[int, tuple[Execution, ...]]


@dataclass(frozen=True)
class Written:
    """The rows that workers wrote for one task: its model calls and its executions."""

    calls: Sequence[CallRecord] = ()
    begun: Sequence[StartedExecution] = ()


def executions_of(run: WorkflowRun, begun: Iterable[StartedExecution], at: datetime) -> Executions:
    """The executions of each attempt that has any in `begun`, by the event id of the attempt's schedule."""
    begun_by_attempt: defaultdict[tuple[str, int], list[StartedExecution]] = defaultdict(list)
    for execution in begun:
        begun_by_attempt[execution.execution_id, execution.event_id].append(execution)
    until = run.ended_at or at
    attempts = ((step.execution_id, attempt) for step in run.steps for attempt in step.attempts)
    return {
        attempt.event_id: executions(attempt, begun_by_attempt[execution_id, attempt.event_id], until)
        for execution_id, attempt in attempts
        if not attempt.inherited and (execution_id, attempt.event_id) in begun_by_attempt
    }


def idle_of(executions_by_event: Executions) -> Idle:
    """The periods in which no worker was executing an attempt, by the event id of its schedule."""
    return {event_id: gaps for event_id, of_attempt in executions_by_event.items() if (gaps := tuple(idle(of_attempt)))}


def step_records(
    run: WorkflowRun,
    stage_of: Mapping[str, str],
    calls: Sequence[CallRecord],
    active: Mapping[Share, timedelta],
    executions_by_event: Executions,
) -> tuple[StepRecord, ...]:
    """The steps of the history, then those that only the journal has."""
    steps = tuple(
        _step(number, step, stage_of, calls, active, executions_by_event)
        for number, step in enumerate(run.steps, start=1)
    )
    return steps + tuple(_journal_steps(calls, steps))


def _step(
    number: int,
    step: Step,
    stage_of: Mapping[str, str],
    calls: Sequence[CallRecord],
    active: Mapping[Share, timedelta],
    executions_by_event: Executions,
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
        writes=sum(1 + (attempt.ended_at is not None) for attempt in own),
        attempts=tuple(_attempt(attempt, executions_by_event.get(attempt.event_id, ())) for attempt in step.attempts),
        answered_by=answered,
    )


def _journal_steps(calls: Sequence[CallRecord], steps: Sequence[StepRecord]) -> Iterator[StepRecord]:
    """A step for each execution id that has calls in the journal but is missing in the history, so that no charge is
    lost."""
    in_history = {step.execution_id for step in steps}
    names = {call.execution_id: call.stage for call in calls if call.execution_id not in in_history}
    for number, (execution_id, stage) in enumerate(names.items(), start=len(steps) + 1):
        yield StepRecord(number, execution_id, stage, stage, "", _NOTHING, _NOTHING, 0, ())


def _answered_by(step: Step) -> AnsweredBy | None:
    """Where the answer to the step's model call came from, according to the step's result; None without a call."""
    result = step.last.result
    if result is None or "answered_by" not in result.text:  # most results are a tool's; parsing them takes longer
        return None
    answered_by = result.at("use", "answered_by")
    return AnsweredBy(answered_by) if isinstance(answered_by, str) and answered_by in _ANSWERERS else None


def _attempt(attempt: Attempt, executions: tuple[Execution, ...]) -> AttemptRecord:
    failure = attempt.failure.root if attempt.failure else None
    # PostgreSQL cannot store NUL in a text.
    error = words_of(failure).replace("\0", "\N{REPLACEMENT CHARACTER}") if failure else ""
    return AttemptRecord(
        attempt.number, attempt.scheduled_at, attempt.ended_at, attempt.outcome, error, attempt.event_id, executions
    )


def count_wasted_writes(step: StepRecord) -> int:
    """The number of history events of the step's failed attempts: a schedule and a failure for each."""
    return 2 * sum(attempt.outcome is AttemptOutcome.FAILED for attempt in step.attempts)


# The parts of a task's time in which it occupies no worker.
_PAUSES = (TimePart.RESTART, TimePart.WAITING, TimePart.BACK_OFF, TimePart.SUSPENDED, TimePart.TIMER, TimePart.CHILDREN)
_STATUSES = {
    RunStatus.COMPLETED: TaskStatus.COMPLETED,
    RunStatus.FAILED: TaskStatus.FAILED,
    RunStatus.TERMINATED: TaskStatus.TERMINATED,
    RunStatus.CANCELED: TaskStatus.TERMINATED,
    RunStatus.SUSPENDED: TaskStatus.PAUSED,
    RunStatus.STALLED: TaskStatus.PARKED,
}
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Naming:
    """The meaning of names in a history. `stage_of`: the stage of each activity; an activity that is not listed is a
    stage under its own name. `parked_at`: the event that a parked task waits for. `decided_by`: the event that carries
    a person's decision."""

    stage_of: Mapping[str, str]
    parked_at: str
    decided_by: str = "decision"


def project(run: WorkflowRun, written: Written, book: PriceBook, naming: Naming, at: datetime) -> TaskRecord:
    """The record of a task as of `at` (UTC). Raises ValueError for a run that has not started."""
    if run.started_at is None:
        raise ValueError(f"run {run.instance_id} is pending; there is nothing to record yet")
    calls = with_usages(with_proven(run, written.calls))
    executions = executions_of(run, written.begun, at)
    idle = idle_of(executions)
    active = shares(run, at, idle)
    steps = step_records(run, naming.stage_of, calls, active, executions)
    periods = spans(run, at, idle)
    result = _result(run)
    record = TaskRecord(
        task_id=run.instance_id,
        tenant=calls[0].tenant if calls else run.instance_id.partition(":")[0],
        agent=run.app_id,
        workflow=run.name,
        version=run.version,
        execution_id=run.execution_id,
        rerun_of=run.rerun_of,
        status=_status(run, naming),
        outcome=result.outcome if result else None,
        category=result.category.value if result and result.category else "",
        refund=result.refund if result else None,
        refund_id=result.refund_id if result else None,
        started_at=run.started_at,
        ended_at=run.ended_at,
        projected_at=at,
        parts=_lengths((span.part, span.length) for span in periods),
        pauses=tuple(span for span in periods if span.part in _PAUSES),
        turns=run.turns,
        events=run.events,
        size=run.size,
        steps=steps,
        failures=failures(run, steps),
        calls=calls,
        charges=(),
        trace_parent=run.trace_parent,
        certain=losses_are_certain(written.begun, at),
        decisions=tuple(_decisions(run, result, naming)),
    )
    own = active.get(("", False), timedelta(0))
    return replace(record, charges=tuple(_charges(record, run, book, own)))


def with_usages(calls: Sequence[CallRecord]) -> tuple[CallRecord, ...]:
    """All calls of a task, completed: with an estimate of the usage of calls without a result, and with the model of
    calls that were not answered."""
    calls = tuple(_with_unique_numbers(calls))
    settled = {(call.execution_id, call.turn): call for call in calls if call.state is CallState.SETTLED}
    model_of = {(call.component, call.provider): call.model for call in calls if call.model}
    return tuple(
        _complete(call, settled.get((call.execution_id, call.turn)), model_of.get((call.component, call.provider), ""))
        for call in calls
    )


def _with_unique_numbers(calls: Iterable[CallRecord]) -> Iterator[CallRecord]:
    """The calls with unique numbers within each turn of a step: two workers that call at the same moment may use the
    same number, and both calls are charged."""
    taken: set[tuple[str, int, int]] = set()
    for call in calls:
        number = call.number
        while (call.execution_id, call.turn, number) in taken:
            number += 1
        taken.add((call.execution_id, call.turn, number))
        yield call if number == call.number else replace(call, number=number)


def _complete(call: CallRecord, settled: CallRecord | None, model: str) -> CallRecord:
    """`settled`: the answered call of the same turn; `model`: another call's, of the same component and provider."""
    repeated = settled if settled and settled.provider == call.provider else None
    model = call.model or (repeated.model if repeated else "") or model
    lost = call.wasted and call.usage.basis is UsageBasis.UNREPORTED
    if model == call.model and not lost:
        return call
    return replace(call, model=model, usage=lost_usage(call, settled) if lost else call.usage)


def _status(run: WorkflowRun, naming: Naming) -> TaskStatus:
    if run.status in _STATUSES:
        return _STATUSES[run.status]
    waits = [wait.name.casefold() for wait in run.waits if wait.ended_at is None]
    if naming.parked_at.casefold() in waits:
        return TaskStatus.PARKED
    return TaskStatus.WAITING if waits else TaskStatus.RUNNING


def _result(run: WorkflowRun) -> TaskOutput | None:
    """The output of a completed refund workflow; None for a run that is not completed, or of another workflow."""
    if run.output is None or run.status is not RunStatus.COMPLETED:
        return None
    try:
        return TaskOutput.model_validate_json(run.output.text)
    except ValidationError:
        return None


def _decisions(run: WorkflowRun, result: TaskOutput | None, naming: Naming) -> Iterator[DecisionView]:
    """People's decisions, from the events that reached the run, each with its result from the run's output."""
    settled = result.decisions if result else ()
    by_id = {decision.decision_id: decision for decision in settled if decision.decision_id}
    # Events raised by hand have no id; the run settles them in the order of their arrival.
    without_id = iter([decision for decision in settled if not decision.decision_id])
    for event in run.raised:
        decision = _decision(event) if event.name.casefold() == naming.decided_by.casefold() else None
        if decision is not None:
            result_of = by_id.get(decision.decision_id) if decision.decision_id else next(without_id, None)
            at = event.at.isoformat(timespec="milliseconds")
            yield view_of(run.instance_id, result_of or _unsettled(decision, at, run), said_at=at)


def _unsettled(decision: Decision, at: str, run: WorkflowRun) -> SettledDecision:
    """A decision whose result the run has not reported: handed over while the run continues, too late once it has
    ended."""
    over = run.ended_at
    return SettledDecision(
        **decision.model_dump(),
        at=over.isoformat(timespec="milliseconds") if over else at,
        state=DecisionState.TOO_LATE if over else DecisionState.HANDED_OVER,
        code=decision_texts.ENDED if over else "",
    )


def _decision(event: RaisedEvent) -> Decision | None:
    try:
        return Decision.model_validate_json(event.payload.text if event.payload else "")
    except ValidationError:
        return None


def _lengths(periods: Iterable[tuple[TimePart, timedelta]]) -> dict[TimePart, timedelta]:
    lengths: defaultdict[TimePart, timedelta] = defaultdict(timedelta)
    for part, length in periods:
        lengths[part] += length
    return dict(lengths)


def _charges(record: TaskRecord, run: WorkflowRun, book: PriceBook, own: timedelta) -> Iterator[Charge]:
    """The charges of the calls, of the steps, and of the workflow itself. `own`: how long the workflow's code ran."""
    origins = {step.execution_id: _origin(record, step) for step in record.steps}
    for call in record.calls:
        if call.state is not CallState.STARTED:
            yield from _charges_of_call(call, origins[call.execution_id], book)
    for step in record.steps:
        if step.writes and (run.ended_at or _over(step)):
            yield from _charges_of_step(step, origins[step.execution_id], book)
    if run.ended_at is not None:
        own_events = run.events - sum(step.writes for step in record.steps)
        work = replace(_work(own, own_events), retained_bytes=Quantity(Decimal(run.size)))
        if not run.events:  # the history was purged before it was read
            work = Work(UNREPORTED, UNREPORTED, UNREPORTED)
        yield from charge_work(book, work, _origin(record, None))


def _charges_of_step(step: StepRecord, origin: Origin, book: PriceBook) -> Iterator[Charge]:
    """The charges for the work on a step; wasted work has separate charges."""
    wasted_writes = count_wasted_writes(step)
    yield from charge_work(book, _work(step.active - step.lost, step.writes - wasted_writes), origin)
    if step.lost or wasted_writes:
        yield from charge_work(book, _work(step.lost, wasted_writes), origin, wasted=True)


def _over(step: StepRecord) -> bool:
    """Whether the step is completed. A failed step may be retried as long as the run continues."""
    return step.attempts[-1].outcome is AttemptOutcome.COMPLETED


def _work(active: timedelta, writes: int) -> Work:
    seconds = Decimal(active // _MICROSECOND).scaleb(-6)
    return Work(active_seconds=Quantity(seconds), step_writes=Quantity(Decimal(writes)))


def _origin(record: TaskRecord, step: StepRecord | None) -> Origin:
    at = step.attempts[0].scheduled_at if step and step.attempts else record.ended_at or record.started_at
    at = max(at, record.started_at)  # a rerun inherits attempts that were charged to the previous run
    return Origin(
        task_id=record.task_id,
        tenant=record.tenant,
        agent=record.agent,
        workflow=record.workflow,
        at=at,
        stage=step.stage if step else "",
        step=step.name if step else "",
        tool=step.tool if step else "",
        execution_id=step.execution_id if step else "",
        outcome=record.outcome.value if record.outcome else "",
    )


def _charges_of_call(call: CallRecord, origin: Origin, book: PriceBook) -> Iterator[Charge]:
    call_origin = replace(
        origin,
        at=call.started_at,
        turn=call.turn,
        number=call.number,
        model=call.model,
        provider=call.provider,
        component=call.component,
    )
    if call.usage != NOTHING or call.provider:  # a call that reached no sidecar has no provider and cost nothing
        yield from charge_call(book, call.usage, call_origin, wasted=call.wasted)
