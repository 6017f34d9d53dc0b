"""Plans the spans of a task's trace from its record.

    invoke_agent <agent>           the task; child of the sidecar's trace if that was sampled
    ├── <stage>                    a step that asks a model
    │   └── chat <model>           each of its model calls, including failed and interrupted ones
    ├── execute_tool <tool>        any other step
    └── waiting <event>, back_off  the times in which the task was idle

Spans contain no texts: only the type of an error, and only the token counts of a model call, unless `texts` gives the
answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import count

from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.errors import FailureCause
from app.domain.models import CallState, TaskStatus, UsageBasis
from app.domain.money import add, plain
from app.ledger.store.task_record import StepRecord, TaskRecord
from app.pricing.charge_types import CallRecord, Charge, CostBasis, CostKind, worst_of
from app.pricing.formula import effective_charges
from app.telemetry import names
from app.telemetry.names import TraceParent, span_id, trace_of

# The attributes of a task, a step or a model call. Unknown values are left out.

# The form of an exception's class name; anything else may be a text.
_ERROR_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")


def task_attributes(record: TaskRecord) -> dict[str, Value]:
    """The attributes of a task, without its cost."""
    providers = {call.provider for call in record.calls}
    return _without_empty(
        {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT: record.agent,
            names.WORKFLOW: record.workflow,
            names.CONVERSATION: record.task_id,
            names.PROVIDER: names.provider_name(providers.pop()) if len(providers) == 1 else "",
            names.WORKFLOW_VERSION: record.version,
            names.WORKFLOW_TURNS: record.turns,
            names.HISTORY_EVENTS: record.events,
            names.HISTORY_BYTES: record.size,
            names.TASK_STATUS: record.status.value,
            names.TASK_OUTCOME: record.outcome.value if record.outcome else "",
            names.TASK_CATEGORY: record.category,
            names.TASK_RERUN_OF: record.rerun_of or "",
            names.ACTIVE_SECONDS: record.parts.get(TimePart.ACTIVE, timedelta(0)).total_seconds(),
        }
    )


def step_attributes(step: StepRecord) -> dict[str, Value]:
    """The attributes of a step, without its cost."""
    attributes: dict[str, Value] = {
        names.STAGE: step.stage,
        names.STEP: step.step,
        names.STEP_ATTEMPTS: len(step.attempts),
    }
    if step.answered_by is not None:
        attributes[names.ANSWERED_BY] = step.answered_by.value
    if step.tool:
        attributes |= {names.OPERATION: names.EXECUTE_TOOL, names.TOOL: step.tool, names.TOOL_TYPE: names.FUNCTION}
    return attributes


def call_attributes(call: CallRecord) -> dict[str, Value]:
    """The attributes of a model call, without its cost."""
    attributes: dict[str, Value] = {
        names.OPERATION: names.CHAT,
        names.PROVIDER: names.provider_name(call.provider),
        names.CONVERSATION: call.task_id,
        names.REQUEST_MODEL: call.model,
        names.RESPONSE_MODEL: call.model if call.finish_reason else "",
        names.STAGE: call.stage,
        names.CALL_STATE: call.state.value,
        names.CALL_TURN: call.turn,
        names.CALL_NUMBER: call.number,
        names.CALL_WASTED: call.wasted,
        names.COMPONENT: call.component,
        names.PROMPT_VERSION: call.prompt_version,
        names.WORKER: call.worker,
        names.TOKENS_BASIS: call.usage.basis.value,
    }
    if call.finish_reason:
        attributes[names.FINISH_REASONS] = (call.finish_reason,)
    if call.wasted:
        attributes[names.ERROR_TYPE] = _error_type_of(call)
    return _without_empty(attributes) | _token_attributes(call)


def _token_attributes(call: CallRecord) -> dict[str, Value]:
    """The known token counts. An unknown count is left out, since it is not zero."""
    usage = call.usage
    if usage.basis is UsageBasis.UNREPORTED:
        return {}
    counts = {
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHE_READ_TOKENS: usage.cached_tokens,
        names.CACHE_CREATION_TOKENS: usage.cache_write_tokens,
        names.REASONING_TOKENS: usage.reasoning_tokens,
    }
    return {name: tokens for name, tokens in counts.items() if tokens is not None}


def _without_empty(attributes: dict[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value != ""}


def _error_type_of(call: CallRecord) -> str:
    if call.state is CallState.INTERRUPTED:
        return call.state.value
    cause = FailureCause.from_error(call.error)
    return names.OTHER_ERROR if cause is FailureCause.OTHER else cause.value


def error_of(step: StepRecord) -> str:
    """The type of the error with which a step ended; empty if it did not fail."""
    if not step.attempts or step.attempts[-1].outcome is not AttemptOutcome.FAILED:
        return ""
    name, colon, _ = step.attempts[-1].error.partition(":")
    return name if colon and _ERROR_TYPE.fullmatch(name) else names.OTHER_ERROR


def failure_of(record: TaskRecord) -> str:
    """The type of the error with which a task failed, taken from its last failed step."""
    return next((error for step in reversed(record.steps) if (error := error_of(step))), names.OTHER_ERROR)


# The costs of spans.
#
# Each charge belongs to exactly one span (the call, else the step, else the task), so the costs of a trace's spans sum
# to the cost of the task. Amounts are decimal strings, since floats would not sum exactly.

Value = str | int | float | bool | tuple[str, ...]
Key = tuple[str, int, int]  # execution id, turn and number of the call; (id, 0, 0) for a step, ("", 0, 0) for the task

_TASK: Key = ("", 0, 0)


@dataclass(slots=True)
class Cost:
    """The cost of one span: the sums of its known charges by currency, and how they are known."""

    amounts: dict[str, Decimal] = field(default_factory=dict)
    knowns: set[CostBasis] = field(default_factory=set)
    price_id: str = ""
    book_digest: str = ""
    _last: tuple[UsageBasis, bool] | None = None

    def add_charge(self, charge: Charge) -> None:
        """Adds one charge."""
        basis = (charge.usage_basis, charge.contracted_unit_price is None)
        if basis != self._last:  # mostly equal to the last one, and cheaper to compare than to compute
            self._last = basis
            self.knowns.add(charge.cost_basis)
        self.book_digest = charge.book_digest
        self.price_id = charge.price_id or self.price_id
        if charge.contracted_cost is not None and charge.currency is not None:
            self._add(charge.currency, charge.contracted_cost)

    def add_cost(self, other: Cost) -> None:
        """Adds the cost of another span."""
        self.knowns |= other.knowns
        self.book_digest = other.book_digest
        for currency, amount in other.amounts.items():
            self._add(currency, amount)

    def _add(self, currency: str, amount: Decimal) -> None:
        known = self.amounts.get(currency)
        self.amounts[currency] = amount if known is None else add(known, amount)

    def attributes(self, prefix: str) -> dict[str, Value]:
        """`amount` and `currency`, or `amounts` for several currencies; neither if no amount is known. `basis` says how
        the cost is known: with `unreported` or `unpriced`, the true amount differs."""
        attributes: dict[str, Value] = {f"{prefix}.basis": worst_of(self.knowns).value}
        if len(self.amounts) == 1:
            ((currency, amount),) = self.amounts.items()
            attributes |= {f"{prefix}.amount": plain(amount), f"{prefix}.currency": currency}
        elif self.amounts:
            amounts = tuple(f"{plain(self.amounts[currency])} {currency}" for currency in sorted(self.amounts))
            attributes[f"{prefix}.amounts"] = amounts
        return attributes


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a task's spans."""

    whole: Cost
    by_span: Mapping[Key, Cost]

    def of_task(self) -> dict[str, Value]:
        """The cost that belongs to no step, and the cost of the whole task."""
        if not self.whole.knowns:
            return {}
        whole = self.whole.attributes(names.TASK_COST) | {names.PRICE_BOOK: self.whole.book_digest}
        return self._of(_TASK) | whole

    def of_step(self, step: StepRecord) -> dict[str, Value]:
        """The cost of a step without its model calls."""
        return self._of((step.execution_id, 0, 0))

    def of_call(self, call: CallRecord) -> dict[str, Value]:
        """The cost of a model call's tokens, with the price and the price book."""
        key = (call.execution_id, call.turn, call.number)
        attributes = self._of(key)
        if attributes:
            cost = self.by_span[key]
            attributes |= {names.PRICE: cost.price_id} if cost.price_id else {}
            attributes[names.PRICE_BOOK] = cost.book_digest
        return attributes

    def _of(self, key: Key) -> dict[str, Value]:
        cost = self.by_span.get(key)
        return {} if cost is None else cost.attributes(names.COST)


def costs(record: TaskRecord) -> Costs:
    """Sums the record's charges by span, after their corrections."""
    calls = {(call.execution_id, call.turn, call.number) for call in record.calls}
    spans = calls | {(step.execution_id, 0, 0) for step in record.steps}
    whole, by_span = Cost(), dict[Key, Cost]()
    for charge in effective_charges(record.charges):
        key = _key(charge, spans)
        if key not in by_span:
            by_span[key] = Cost()
        by_span[key].add_charge(charge)
    for cost in by_span.values():
        whole.add_cost(cost)
    return Costs(whole, by_span)


def _key(charge: Charge, spans: Set[Key]) -> Key:
    """The narrowest existing span to which the charge belongs."""
    call = (charge.execution_id, charge.turn, charge.number)
    if charge.kind is CostKind.MODEL and call in spans:
        return call
    step = (charge.execution_id, 0, 0)
    return step if step in spans else _TASK


# Gives the answer to a call in the conventions' form; None if there is none, or its retention time has passed.
Texts = Callable[[CallRecord], str | None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SpanKind(StrEnum):
    """Whether a span is internal work or a request to another service."""

    INTERNAL = "internal"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class PlannedSpan:
    """One span to export. Times are nanoseconds since 1970; `parent_id` is None for the root of a trace."""

    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    parent_id: int | None
    start: int
    end: int
    attributes: dict[str, Value]
    failed: bool = False
    remote_parent: bool = False


def plan(record: TaskRecord, texts: Texts | None = None) -> tuple[PlannedSpan, ...]:
    """The spans of a task, with the task's own span first. Work without a known end ends with the task, or when the
    record was made."""
    return tuple(_Plan(record, texts).spans())


class _Plan:
    """Plans the spans of one task."""

    def __init__(self, record: TaskRecord, texts: Texts | None) -> None:
        self._record = record
        self._texts = texts
        self._costs: Costs = costs(record)
        self._trace: TraceParent = trace_of(record.task_id, record.trace_parent)
        self._task_span = span_id(record.task_id, record.execution_id)
        self._end = record.ended_at or record.projected_at
        self._common: dict[str, Value] = {names.TENANT: record.tenant, names.TASK_ID: record.task_id}

    def spans(self) -> list[PlannedSpan]:
        """The spans of the task, its steps, its calls and its pauses."""
        record = self._record
        steps = {step.execution_id: self._step(step) for step in record.steps}
        calls = [self._call(call, steps.get(call.execution_id)) for call in record.calls]
        pauses = [self._pause(number, pause) for number, pause in zip(count(1), record.pauses, strict=False)]
        return [self._task(), *steps.values(), *calls, *pauses]

    def _task(self) -> PlannedSpan:
        record = self._record
        failed = record.status is TaskStatus.FAILED
        attributes = self._common | task_attributes(record) | self._costs.of_task()
        if failed:
            attributes[names.ERROR_TYPE] = failure_of(record)
        return PlannedSpan(
            name=f"{names.INVOKE_AGENT} {record.agent}" if record.agent else names.INVOKE_AGENT,
            kind=SpanKind.INTERNAL,
            trace_id=self._trace.trace_id,
            span_id=self._task_span,
            parent_id=self._trace.span_id,
            start=_nanoseconds(record.started_at),
            end=_nanoseconds(max(self._end, record.started_at)),
            attributes=attributes,
            failed=failed,
            remote_parent=self._trace.span_id is not None,
        )

    def _step(self, step: StepRecord) -> PlannedSpan:
        attributes = self._common | step_attributes(step) | self._costs.of_step(step)
        error = error_of(step)
        if error:
            attributes[names.ERROR_TYPE] = error
        name = f"{names.EXECUTE_TOOL} {step.tool}" if step.tool else step.name
        key = (self._record.task_id, self._record.execution_id, "step", step.execution_id)
        started, ended = self._times(step)
        return self._child(name, span_id(*key), self._task_span, started, ended, attributes, failed=bool(error))

    def _call(self, call: CallRecord, step: PlannedSpan | None) -> PlannedSpan:
        attributes = self._common | call_attributes(call) | self._costs.of_call(call)
        if self._texts is not None and (text := self._texts(call)) is not None:
            attributes[names.OUTPUT_MESSAGES] = text
        started, ended = call.started_at, call.ended_at
        if ended is None:
            attributes[names.CALL_END_KNOWN] = False
            ended = self._record.end_of(call) or self._end
        name = f"{names.CHAT} {call.model}" if call.model else names.CHAT
        own, parent = span_id("call", call.call_id), step.span_id if step else self._task_span
        return self._child(name, own, parent, started, ended, attributes, SpanKind.CLIENT, failed=call.wasted)

    def _pause(self, number: int, pause: Span) -> PlannedSpan:
        attributes = self._common | {names.PAUSE: pause.part.value}
        if pause.label:
            attributes[names.PAUSE_FOR] = pause.label
        name = f"{pause.part.value} {pause.label}" if pause.label else pause.part.value
        own = span_id(self._record.task_id, self._record.execution_id, "pause", str(number))
        return self._child(name, own, self._task_span, pause.started_at, pause.ended_at, attributes)

    def _child(
        self,
        name: str,
        own: int,
        parent: int,
        started: datetime,
        ended: datetime,
        attributes: dict[str, Value],
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        failed: bool = False,
    ) -> PlannedSpan:
        start, end = _nanoseconds(started), _nanoseconds(max(started, ended))
        return PlannedSpan(name, kind, self._trace.trace_id, own, parent, start, end, attributes, failed)

    def _times(self, step: StepRecord) -> tuple[datetime, datetime]:
        """Start and end of a step: from its first scheduling to its last end; without attempts, those of its calls."""
        if step.attempts:
            return step.attempts[0].scheduled_at, step.attempts[-1].ended_at or self._end
        calls = self._record.calls_of(step)
        started = min((call.started_at for call in calls), default=self._record.started_at)
        return started, max((self._record.end_of(call) or self._end for call in calls), default=started)


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND * 1_000
