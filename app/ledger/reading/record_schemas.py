"""A task's record as JSON, for the command line and the HTTP API. The keys are a public promise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import Field, PlainSerializer

from app.dapr.history.causes import Cause
from app.dapr.history.executions import ExecutionOutcome
from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import TimePart
from app.domain.models import AnsweredBy, CallState, DecisionView, Outcome, Refund, TaskStatus, ToolForm, UsageBasis
from app.finance.report_schemas import Exact, GroupView, View, group_view
from app.finance.rollup import rollup
from app.ledger.recording.failures import cause_of_call
from app.ledger.store.task_record import FailureKind, TaskRecord
from app.pricing.charge_types import CallRecord, Charge, CostBasis, CostKind, Meter, Mode, Unit

_View = TypeVar("_View", bound=View)
Seconds = Annotated[timedelta, PlainSerializer(timedelta.total_seconds, return_type=float)]


class PauseView(View):
    """A time in which the task was idle; `label` names the event that it waited for."""

    part: TimePart
    label: str
    started_at: datetime
    ended_at: datetime
    seconds: Seconds = Field(validation_alias="length")


class ExecutionView(View):
    """One worker's start on an attempt; `worker` names one worker process, from its start to its end."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: ExecutionOutcome
    cause: Cause | None


class AttemptView(View):
    """One attempt at a step: one scheduling by the workflow."""

    number: int
    scheduled_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome
    error: str
    executions: tuple[ExecutionView, ...]


class FailureView(View):
    """Work that brought no result. `resumed_at` is null until the work is resumed. `execution` 0 or an empty `worker`:
    not known."""

    step: int
    attempt: int
    execution: int
    kind: FailureKind
    cause: Cause
    at: datetime
    resumed_at: datetime | None
    worker: str


class StepView(View):
    """One step; `cost` is the sum of its charges, including its model calls. `lost_seconds` is the part of
    `active_seconds` that brought no result."""

    step: int
    execution_id: str
    name: str
    stage: str
    tool: str
    active_seconds: Seconds = Field(validation_alias="active")
    lost_seconds: Seconds = Field(validation_alias="lost")
    writes: int
    answered_by: AnsweredBy | None
    attempts: tuple[AttemptView, ...]
    cost: GroupView


class StageView(View):
    """One stage; an empty `stage` is the cost of the workflow itself. The stages sum to the task."""

    stage: str
    steps: int
    active_seconds: Seconds
    cost: GroupView


class UsageView(View):
    """The tokens that a call used; null: not reported. `input_tokens` includes cached and cache-written tokens."""

    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    basis: UsageBasis


class CallView(View):
    """One model call; `step` is null if the history holds no step for it. `ended_at` is null if no end was recorded;
    `over_at` is then when it must have ended, null while it may still run. `wasted`: it brought no result; `cause`:
    why, if known."""

    call_id: str
    step: int | None
    execution_id: str
    stage: str
    turn: int
    number: int
    state: CallState
    worker: str
    component: str
    provider: str
    model: str
    prompt_version: str
    request_digest: str
    tool_form: ToolForm | None
    started_at: datetime
    ended_at: datetime | None
    over_at: datetime | None
    usage: UsageView
    reserve_input: int
    reserve_output: int
    finish_reason: str
    error: str
    cause: Cause | None
    wasted: bool
    cost: GroupView


class ChargeView(View):
    """One charge; contracted_cost = consumed_quantity x contracted_unit_price / the unit's `per`. Null: not known."""

    id: str
    kind: CostKind
    meter: Meter
    stage: str
    step: str
    tool: str
    execution_id: str
    turn: int
    number: int
    at: datetime
    provider: str
    component: str
    model: str
    consumed_quantity: Exact | None
    unit: Unit
    usage_basis: UsageBasis
    contracted_unit_price: Exact | None
    contracted_cost: Exact | None
    list_unit_price: Exact | None
    list_cost: Exact | None
    currency: str | None
    cost_basis: CostBasis
    price_id: str | None
    book_digest: str
    mode: Mode
    wasted: bool
    correction: int
    correction_of: str | None


class RecordView(View):
    """The record of a task. `seconds` sum to the time from its start to its end, or to `projected_at`. `workers`: the
    worker processes that worked on it."""

    task_id: str
    tenant: str
    agent: str
    workflow: str
    version: str
    execution_id: str
    rerun_of: str | None
    status: TaskStatus
    outcome: Outcome | None
    category: str
    refund: Refund | None
    refund_id: str | None
    decisions: tuple[DecisionView, ...]
    started_at: datetime
    ended_at: datetime | None
    projected_at: datetime
    seconds: dict[TimePart, Seconds] = Field(validation_alias="parts")
    pauses: tuple[PauseView, ...]
    turns: int
    events: int
    bytes: int = Field(validation_alias="size")
    trace_parent: str
    workers: tuple[str, ...]
    stages: tuple[StageView, ...]
    steps: tuple[StepView, ...]
    failures: tuple[FailureView, ...]
    calls: tuple[CallView, ...]
    charges: tuple[ChargeView, ...]
    total: GroupView


def record_view(record: TaskRecord) -> RecordView:
    """The whole record, with the cost of each stage, step and call, and the total."""
    steps = {step.execution_id: step.step for step in record.steps}
    return _view(
        RecordView,
        record,
        stages=[_stage(record, stage) for stage in stages_of(record)],
        steps=[_view(StepView, step, cost=sum_of(record.charges_of(step))) for step in record.steps],
        calls=[
            _view(
                CallView,
                call,
                step=steps.get(call.execution_id),
                over_at=record.end_of(call),
                cause=cause_of_call(record, call),
                cost=sum_of(charges_of_call(record, call)),
            )
            for call in record.calls
        ],
        total=sum_of(record.charges),
    )


def _view(view: type[_View], source: object, **computed: object) -> _View:
    """A view made of the source's attributes and of the `computed` fields."""
    names = [field.validation_alias or name for name, field in view.model_fields.items() if name not in computed]
    return view.model_validate({name: getattr(source, str(name)) for name in names} | computed)


def stages_of(record: TaskRecord) -> tuple[str, ...]:
    """The record's stages in the order of their first step; the empty one (the workflow itself) is the last."""
    worked = [*(step.stage for step in record.steps), *(call.stage for call in record.calls)]
    stages = dict.fromkeys([*worked, *(charge.stage for charge in record.charges)])
    return tuple(sorted(stages, key=lambda stage: not stage))


def charges_of_call(record: TaskRecord, call: CallRecord) -> tuple[Charge, ...]:
    """The charges of one model call."""
    key = (call.execution_id, call.turn, call.number)
    return tuple(
        charge
        for charge in record.charges
        if charge.kind is CostKind.MODEL and (charge.execution_id, charge.turn, charge.number) == key
    )


def sum_of(charges: Iterable[Charge]) -> GroupView:
    """The sum of the charges."""
    return group_view(rollup(charges).total)


def _stage(record: TaskRecord, stage: str) -> StageView:
    steps = [step for step in record.steps if step.stage == stage]
    return StageView(
        stage=stage,
        steps=len(steps),
        active_seconds=sum((step.active for step in steps), timedelta(0)),
        cost=sum_of(charge for charge in record.charges if charge.stage == stage),
    )
