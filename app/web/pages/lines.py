"""The table below the time line: a line for each attempt and each model call, and one for the workflow.

Every charge of the record is in exactly one line: that of its model call, otherwise the first line of its step (compute
and persisted writes), otherwise the line of the workflow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from app.dapr.history.executions import ExecutionOutcome
from app.dapr.history.model import AttemptOutcome
from app.domain.formatting import NOTHING, UNKNOWN, Digits, duration, tokens
from app.domain.models import AnsweredBy, CallState
from app.ledger.store.task_record import AttemptRecord, StepRecord, TaskRecord
from app.pricing.charge_types import CallRecord, Charge
from app.web.pages.page_texts import MoneyTexts, money_cell

_FAILED = (AttemptOutcome.FAILED, AttemptOutcome.LOST)
_CallKey = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLine:
    """One line of the table; an empty text is an empty cell. `failed`: the line's work had no result. `wasted`: its
    charges count as wasted."""

    kind: str  # attempt, call, step (a step without attempts) or workflow
    stage: str = ""
    step: str = ""
    name: str = ""
    attempt: str = ""
    started_at: datetime | None = None
    duration: str = ""
    call: str = ""
    state: str = ""
    error: str = ""
    answered_by: str = ""
    model: str = ""
    input: str = ""
    cached: str = ""
    output: str = ""
    money: MoneyTexts
    charges: tuple[Charge, ...] = ()
    failed: bool = False
    wasted: bool = False


@dataclass(frozen=True, slots=True)
class StepLines:
    """The lines of one step, or of the workflow."""

    name: str
    lines: tuple[TableLine, ...]


def make_lines(record: TaskRecord, digits: Digits) -> tuple[StepLines, ...]:
    """All lines of `record`, grouped by step, with amounts to `digits`."""
    by_call, by_step = _group_charges(record)
    groups = [StepLines(step.name, tuple(_step_lines(record, step, by_call, by_step, digits))) for step in record.steps]
    rest = tuple(charge for charges in (*by_call.values(), *by_step.values()) for charge in charges)
    if rest:
        line = TableLine(kind="workflow", stage="workflow", money=money_cell(rest, digits), charges=rest)
        groups.append(StepLines("workflow", (line,)))
    return tuple(groups)


def _group_charges(record: TaskRecord) -> tuple[dict[_CallKey, list[Charge]], dict[str, list[Charge]]]:
    """The charges of model calls by call, and all others by step."""
    by_call: dict[_CallKey, list[Charge]] = defaultdict(list)
    by_step: dict[str, list[Charge]] = defaultdict(list)
    calls = {(call.execution_id, call.turn, call.number) for call in record.calls}
    for charge in record.charges:
        key = (charge.execution_id, charge.turn, charge.number)
        if key in calls:
            by_call[key].append(charge)
        else:
            by_step[charge.execution_id].append(charge)
    return by_call, by_step


def _step_lines(
    record: TaskRecord,
    step: StepRecord,
    by_call: dict[_CallKey, list[Charge]],
    by_step: dict[str, list[Charge]],
    digits: Digits,
) -> Iterator[TableLine]:
    """The lines of a step. Removes the charges of these lines from `by_call` and `by_step`."""
    end = record.ended_at or record.projected_at
    step_charges = tuple(by_step.pop(step.execution_id, ()))
    calls = record.calls_of(step)
    if not step.attempts:
        yield TableLine(
            kind="step",
            stage=step.stage,
            step=str(step.step),
            name=step.name,
            money=money_cell(step_charges, digits),
            charges=step_charges,
            state="not in the history",
        )
    for number, attempt in enumerate(step.attempts):
        yield _attempt_line(step, attempt, () if number else step_charges, end, digits)
        for call in calls:
            if _attempt_of(call, step.attempts) is attempt:
                yield _call_line(record, step, call, tuple(by_call.pop(_key(call), ())), attempt, digits)
    for call in calls if not step.attempts else ():
        yield _call_line(record, step, call, tuple(by_call.pop(_key(call), ())), None, digits)


def _key(call: CallRecord) -> _CallKey:
    return call.execution_id, call.turn, call.number


def _attempt_of(call: CallRecord, attempts: Sequence[AttemptRecord]) -> AttemptRecord:
    """The last attempt that was scheduled before the call started; the first one if the machines' clocks differ."""
    earlier = [attempt for attempt in attempts if attempt.scheduled_at <= call.started_at]
    return earlier[-1] if earlier else attempts[0]


def _attempt_line(
    step: StepRecord, attempt: AttemptRecord, charges: tuple[Charge, ...], end: datetime, digits: Digits
) -> TableLine:
    return TableLine(
        kind="attempt",
        stage=step.stage,
        step=str(step.step),
        name=step.name,
        attempt=str(attempt.number),
        started_at=attempt.scheduled_at,
        duration=duration((attempt.ended_at or end) - attempt.scheduled_at),
        state="running" if attempt.outcome is AttemptOutcome.OPEN else attempt.outcome.value,
        error="; ".join(filter(None, (*_interruptions(attempt), attempt.error))),
        money=money_cell(charges, digits),
        charges=charges,
        failed=attempt.outcome in _FAILED,
    )


def _interruptions(attempt: AttemptRecord) -> Iterator[str]:
    """The attempt's interrupted executions, each with its cause and the time until the next execution started."""
    for execution, successor in zip_longest(attempt.executions, attempt.executions[1:]):
        if execution.outcome is ExecutionOutcome.INTERRUPTED and execution.ended_at and execution.cause:
            pause = f", taken up again after {duration(successor.started_at - execution.ended_at)}" if successor else ""
            yield f"execution {execution.number} interrupted ({execution.cause.words}){pause}"


def _call_line(
    record: TaskRecord,
    step: StepRecord,
    call: CallRecord,
    charges: tuple[Charge, ...],
    attempt: AttemptRecord | None,
    digits: Digits,
) -> TableLine:
    usage = call.usage
    ended = record.end_of(call) or record.ended_at or record.projected_at
    return TableLine(
        kind="call",
        stage=step.stage,
        step=str(step.step),
        name=step.name,
        attempt=str(attempt.number) if attempt else "",
        started_at=call.started_at,
        duration=duration(max(ended, call.started_at) - call.started_at, estimated=call.ended_at is None),
        call=f"{call.turn}.{call.number}",
        state="running" if call.state is CallState.STARTED else call.state.value,
        error=call.error,
        answered_by=_answered_by(step, call),
        model=call.model or UNKNOWN,
        input=tokens(usage.input_tokens, usage.basis),
        cached=tokens(usage.cached, usage.basis),
        output=tokens(usage.output_tokens, usage.basis),
        money=money_cell(charges, digits),
        charges=charges,
        failed=call.wasted,
        wasted=call.wasted,
    )


def _answered_by(step: StepRecord, call: CallRecord) -> str:
    """The provider answers a settled call once; a later execution of the step takes that answer from the journal."""
    if call.state is not CallState.SETTLED:
        return NOTHING
    repeated = step.answered_by is AnsweredBy.JOURNAL
    return f"{AnsweredBy.PROVIDER.value}, then {AnsweredBy.JOURNAL.value}" if repeated else AnsweredBy.PROVIDER.value
