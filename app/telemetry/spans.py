"""From a task's record to the spans of its trace. Pure: no clock, no chance, no collector.

    invoke_agent <agent>           the task, child of the sidecar's trace where that was sampled
    ├── <stage>                    a step that asks a model
    │   └── chat <model>           each of its model calls, the failed and interrupted ones too
    ├── execute_tool <tool>        any other step
    └── waiting <event>, back_off  the times in which the task held nothing

No text is in here: of an error only its type, of a model call only counts, unless `texts` gives the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count

from app.dapr.history.times import Span
from app.domain.models import TaskStatus
from app.ledger.store.task_record import StepRecord, TaskRecord
from app.pricing.call_record import CallRecord
from app.telemetry import names
from app.telemetry.attributes import call_attributes, error_of, failure_of, step_attributes, task_attributes
from app.telemetry.costs import Costs, Value, costs
from app.telemetry.ids import TraceParent, span_id, trace_of

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
            ended = self._latest_end(call)
        name = f"{names.CHAT} {call.model}" if call.model else names.CHAT
        own, parent = span_id("call", call.call_id), step.span_id if step else self._task_span
        return self._child(name, own, parent, started, ended, attributes, SpanKind.CLIENT, failed=call.rerun)

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
        return started, max((call.ended_at or call.started_at for call in calls), default=started)

    def _latest_end(self, call: CallRecord) -> datetime:
        """When a call without an end was over at the latest: as the next one began, or the step ended."""
        later = [
            other.started_at
            for other in self._record.calls
            if (other.execution_id, other.turn) == (call.execution_id, call.turn) and other.number > call.number
        ]
        step = next((step for step in self._record.steps if step.execution_id == call.execution_id), None)
        return min(later, default=self._times(step)[1] if step else self._end)


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND * 1_000
