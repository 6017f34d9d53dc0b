"""From a task's record to the spans of its trace. Pure: no clock, no chance, no collector.

    invoke_agent <agent>           the task, child of the sidecar's trace where that was sampled
    ├── <stage>                    a step that asks a model
    │   └── chat <model>           each of its model calls, the failed and interrupted ones too
    ├── execute_tool <tool>        any other step
    └── waiting <event>, back_off  the times in which the task held nothing

No text is in here: of an error only its type, of a model call only counts, unless `texts` gives the answers.
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

# What a span says of a task, a step or a model call.
#
# What is not known is not there. Of an error there is only its type, since its message may hold a text.

# An exception's class name; anything else may be a text.
_ERROR_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")


def task_attributes(record: TaskRecord) -> dict[str, Value]:
    """Of the task, without its cost."""
    providers = {call.provider for call in record.calls}
    found: dict[str, Value] = {
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
    return _told(found)


def step_attributes(step: StepRecord) -> dict[str, Value]:
    """Of a step, without its cost."""
    found: dict[str, Value] = {names.STAGE: step.stage, names.STEP: step.step, names.STEP_ATTEMPTS: len(step.attempts)}
    if step.answered_by is not None:
        found[names.ANSWERED_BY] = step.answered_by.value
    if step.tool:
        found |= {names.OPERATION: names.EXECUTE_TOOL, names.TOOL: step.tool, names.TOOL_TYPE: names.FUNCTION}
    return found


def call_attributes(call: CallRecord) -> dict[str, Value]:
    """Of a model call, without its cost."""
    found: dict[str, Value] = {
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
        found[names.FINISH_REASONS] = (call.finish_reason,)
    if call.wasted:
        found[names.ERROR_TYPE] = _error_type_of(call)
    return _told(found) | _token_attributes(call)


def _token_attributes(call: CallRecord) -> dict[str, Value]:
    """What is not reported is not there: it is not zero."""
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


def _told(attributes: dict[str, Value]) -> dict[str, Value]:
    """Without what is empty, that is: not known, or none."""
    return {name: value for name, value in attributes.items() if value != ""}


def _error_type_of(call: CallRecord) -> str:
    if call.state is CallState.INTERRUPTED:
        return call.state.value
    cause = FailureCause.from_error(call.error)
    return names.OTHER_ERROR if cause is FailureCause.OTHER else cause.value


def error_of(step: StepRecord) -> str:
    """The type of the error that a step ended with; empty when it ended well."""
    if not step.attempts or step.attempts[-1].outcome is not AttemptOutcome.FAILED:
        return ""
    name, colon, _ = step.attempts[-1].error.partition(":")
    return name if colon and _ERROR_TYPE.fullmatch(name) else names.OTHER_ERROR


def failure_of(record: TaskRecord) -> str:
    """The type of the error that a task failed with: that of the last step that failed."""
    return next((error for step in reversed(record.steps) if (error := error_of(step))), names.OTHER_ERROR)


# Which charges belong to which span, and how a span says what it cost.
#
# Each charge belongs to one span, so the spans of a trace sum to the task, exactly: a model call's to the call, a
# step's to the step, all else to the task. Amounts are decimal strings, since floats would not sum.

Value = str | int | float | bool | tuple[str, ...]
Key = tuple[str, int, int]  # execution id, turn, number of the call; zeros for a step, and empty for the task

_TASK: Key = ("", 0, 0)


@dataclass(slots=True)
class Cost:
    """What one span cost: the sum of what is known of it, by currency."""

    amounts: dict[str, Decimal] = field(default_factory=dict)
    knowns: set[CostBasis] = field(default_factory=set)
    price_id: str = ""
    book_digest: str = ""
    _last: tuple[UsageBasis, bool] | None = None

    def take(self, charge: Charge) -> None:
        """Adds one charge."""
        known = (charge.usage_basis, charge.contracted_unit_price is None)
        if known != self._last:  # mostly the same as before, and cheaper to compare than to look up
            self._last = known
            self.knowns.add(charge.cost_basis)
        self.book_digest = charge.book_digest
        self.price_id = charge.price_id or self.price_id
        if charge.contracted_cost is not None and charge.currency is not None:
            self._add(charge.currency, charge.contracted_cost)

    def take_all(self, other: Cost) -> None:
        """Adds another span's."""
        self.knowns |= other.knowns
        self.book_digest = other.book_digest
        for currency, amount in other.amounts.items():
            self._add(currency, amount)

    def _add(self, currency: str, amount: Decimal) -> None:
        known = self.amounts.get(currency)
        self.amounts[currency] = amount if known is None else add(known, amount)

    def attributes(self, prefix: str) -> dict[str, Value]:
        """`amount` and `currency`, or `amounts` of several currencies; none while nothing is known. `known` says how
        well: where it is `unreported` or `unpriced`, the true amount is another one."""
        found: dict[str, Value] = {f"{prefix}.basis": worst_of(self.knowns).value}
        if len(self.amounts) == 1:
            ((currency, amount),) = self.amounts.items()
            found |= {f"{prefix}.amount": plain(amount), f"{prefix}.currency": currency}
        elif self.amounts:
            found[f"{prefix}.amounts"] = tuple(f"{plain(self.amounts[name])} {name}" for name in sorted(self.amounts))
        return found


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a task's spans."""

    whole: Cost
    by_span: Mapping[Key, Cost]

    def of_task(self) -> dict[str, Value]:
        """The workflow's own, and the whole task's."""
        if not self.whole.knowns:
            return {}
        whole = self.whole.attributes(names.TASK_COST) | {names.PRICE_BOOK: self.whole.book_digest}
        return self._of(_TASK) | whole

    def of_step(self, step: StepRecord) -> dict[str, Value]:
        """The step's work, without its model calls."""
        return self._of((step.execution_id, 0, 0))

    def of_call(self, call: CallRecord) -> dict[str, Value]:
        """The call's tokens, and at which price of which book."""
        key = (call.execution_id, call.turn, call.number)
        found = self._of(key)
        if found:
            cost = self.by_span[key]
            found |= {names.PRICE: cost.price_id} if cost.price_id else {}
            found[names.PRICE_BOOK] = cost.book_digest
        return found

    def _of(self, key: Key) -> dict[str, Value]:
        cost = self.by_span.get(key)
        return {} if cost is None else cost.attributes(names.COST)


def costs(record: TaskRecord) -> Costs:
    """Sums the record's charges by span, as they stand after corrections."""
    spans = _keys(record)
    whole, by_span = Cost(), dict[Key, Cost]()
    for charge in effective_charges(record.charges):
        key = _key(charge, spans)
        if key not in by_span:
            by_span[key] = Cost()
        by_span[key].take(charge)
    for cost in by_span.values():
        whole.take_all(cost)
    return Costs(whole, by_span)


def _keys(record: TaskRecord) -> set[Key]:
    calls = {(call.execution_id, call.turn, call.number) for call in record.calls}
    return calls | {(step.execution_id, 0, 0) for step in record.steps}


def _key(charge: Charge, spans: Set[Key]) -> Key:
    """The narrowest span that there is."""
    call = (charge.execution_id, charge.turn, charge.number)
    if charge.kind is CostKind.MODEL and call in spans:
        return call
    step = (charge.execution_id, 0, 0)
    return step if step in spans else _TASK


# The answer to a call in the conventions' form; None when there is none, or it is gone by its retention time.
Texts = Callable[[CallRecord], str | None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SpanKind(StrEnum):
    """Whether a span stays in this process or asks another one."""

    INTERNAL = "internal"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class PlannedSpan:
    """One span as it is to be exported. Times are nanoseconds since 1970; `parent_id` None for a trace's first."""

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
    """The spans of a task, its own first. What has not ended yet ends with what is known."""
    return tuple(_Plan(record, texts).spans())


class _Plan:
    """The planning of one task."""

    def __init__(self, record: TaskRecord, texts: Texts | None) -> None:
        self._record = record
        self._texts = texts
        self._costs: Costs = costs(record)
        self._trace: TraceParent = trace_of(record.task_id, record.trace_parent)
        self._task_span = span_id(record.task_id, record.execution_id)
        self._end = record.ended_at or record.projected_at
        self._common: dict[str, Value] = {names.TENANT: record.tenant, names.TASK_ID: record.task_id}

    def spans(self) -> list[PlannedSpan]:
        """All of them."""
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
        """From the first schedule to the last end; of a step that only the journal knows, those of its calls."""
        if step.attempts:
            return step.attempts[0].scheduled_at, step.attempts[-1].ended_at or self._end
        calls = self._record.calls_of(step)
        started = min((call.started_at for call in calls), default=self._record.started_at)
        return started, max((self._record.end_of(call) or self._end for call in calls), default=started)


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND * 1_000
