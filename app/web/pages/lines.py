"""The table below the time line: a line for each attempt and each model call, and for the workflow itself. Pure.

Every charge of the record stands in exactly one line: that of its model call; else, since compute and persisted writes
are the step's, in the step's first line; else in the workflow's.
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
    """One line; empty texts are cells without content. `failed`: it brought no result. `wasted`: it is charged as
    wasted work."""

    kind: str  # attempt, call, step (one without an attempt), workflow
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
    """The lines of one step, or of the workflow itself."""

    name: str
    lines: tuple[TableLine, ...]


def make_lines(record: TaskRecord, digits: Digits) -> tuple[StepLines, ...]:
    """All lines of a record, by step."""
    by_call, by_step = _sorted(record)
    groups = [StepLines(step.name, tuple(_step_lines(record, step, by_call, by_step, digits))) for step in record.steps]
    rest = tuple(charge for charges in (*by_call.values(), *by_step.values()) for charge in charges)
    if rest:
        line = TableLine(kind="workflow", stage="the workflow itself", money=money_cell(rest, digits), charges=rest)
        groups.append(StepLines("workflow", (line,)))
    return tuple(groups)


def _sorted(record: TaskRecord) -> tuple[dict[_CallKey, list[Charge]], dict[str, list[Charge]]]:
    """The charges by call, and those of no call by step."""
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
    """Takes the charges that it shows out of both."""
    end = record.ended_at or record.projected_at
    own = tuple(by_step.pop(step.execution_id, ()))
    calls = record.calls_of(step)
    if not step.attempts:
        yield TableLine(
            kind="step",
            stage=step.stage,
            step=str(step.step),
            name=step.name,
            money=money_cell(own, digits),
            charges=own,
            state="not in the history",
        )
    for number, attempt in enumerate(step.attempts):
        yield _attempt_line(step, attempt, () if number else own, end, digits)
        for call in calls:
            if _attempt_of(call, step.attempts) is attempt:
                yield _call_line(record, step, call, tuple(by_call.pop(_key(call), ())), attempt, digits)
    for call in calls if not step.attempts else ():
        yield _call_line(record, step, call, tuple(by_call.pop(_key(call), ())), None, digits)


def _key(call: CallRecord) -> _CallKey:
    return call.execution_id, call.turn, call.number


def _attempt_of(call: CallRecord, attempts: Sequence[AttemptRecord]) -> AttemptRecord:
    """The last one that had begun when the call did; the clocks of two machines may disagree a little."""
    begun = [attempt for attempt in attempts if attempt.scheduled_at <= call.started_at]
    return begun[-1] if begun else attempts[0]


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
    """What of it was lost, and how long nobody took it up."""
    for execution, after in zip_longest(attempt.executions, attempt.executions[1:]):
        if execution.outcome is ExecutionOutcome.INTERRUPTED and execution.ended_at and execution.cause:
            again = f", taken up again after {duration(after.started_at - execution.ended_at)}" if after else ""
            yield f"execution {execution.number} interrupted ({execution.cause.words}){again}"


def _call_line(
    record: TaskRecord,
    step: StepRecord,
    call: CallRecord,
    charges: tuple[Charge, ...],
    attempt: AttemptRecord | None,
    digits: Digits,
) -> TableLine:
    used = call.usage
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
        input=tokens(used.input_tokens, used.basis),
        cached=tokens(used.cached, used.basis),
        output=tokens(used.output_tokens, used.basis),
        money=money_cell(charges, digits),
        charges=charges,
        failed=call.wasted,
        wasted=call.wasted,
    )


def _answered_by(step: StepRecord, call: CallRecord) -> str:
    """A settled call was answered by the provider, once; an execution that came later found that in the journal."""
    if call.state is not CallState.SETTLED:
        return NOTHING
    again = step.answered_by is AnsweredBy.JOURNAL
    return f"{AnsweredBy.PROVIDER.value}, then {AnsweredBy.JOURNAL.value}" if again else AnsweredBy.PROVIDER.value
