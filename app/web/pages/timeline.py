"""The time line of a task: a lane a step, bars for its attempts and model calls, bands for its pauses. Pure.

Across, everything is in percent of the drawing's width, so that one drawing fits a phone and a wide screen; down, in
pixels, since text does not shrink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.dapr.history.executions import ExecutionOutcome
from app.dapr.history.times import Span
from app.domain.models import CallState
from app.ledger.store.task_record import AttemptRecord, StepRecord, TaskRecord
from app.pricing.call_record import CallRecord
from app.web.pages import page_words
from app.web.pages.axis import Axis, Tick, make_axis

LANE_HEIGHT = 42  # px: a line of text, and the bars below it
BAND_LABEL_HEIGHT = 15
AXIS_HEIGHT = 26
_MOST_LABEL_ROWS = 3
_LABEL_WIDTH = 24.0  # of a band's length, on a phone
_ROOM_FOR_A_LABEL = 8.0
_NARROWEST_BAR = 0.5  # what took no time that shows is still shown
_IN_VAIN = ("failed", "interrupted", "lost")


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt or model call. `state` is its own word for how it ended; `hint` says all of it."""

    left: float
    width: float
    state: str
    hint: str

    @property
    def in_vain(self) -> bool:
        """Whether nothing came of it."""
        return self.state in _IN_VAIN


@dataclass(frozen=True, slots=True)
class Lane:
    """One step. `top` is where it begins, in pixels."""

    top: int
    name: str
    detail: str
    figures: str
    attempts: tuple[Bar, ...]
    calls: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """One pause. `row` is where its length is written; None where there is no room for it."""

    left: float
    width: float
    shortened: bool
    label: str
    hint: str
    row: int | None
    anchor: str

    @property
    def middle(self) -> float:
        """Where its break mark is."""
        return _percent(self.left + self.width / 2)

    @property
    def label_x(self) -> float:
        """Where its label is held."""
        return {"start": self.left, "end": _percent(self.left + self.width)}.get(self.anchor, self.middle)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drawing. `top` and `bottom` are where lanes begin and end, in pixels."""

    lanes: tuple[Lane, ...]
    bands: tuple[Band, ...]
    ticks: tuple[Tick, ...]
    top: int
    description: str

    @property
    def bottom(self) -> int:
        """Where the lanes end and the axis begins."""
        return self.top + LANE_HEIGHT * len(self.lanes)

    @property
    def height(self) -> int:
        """Of the whole drawing."""
        return self.bottom + AXIS_HEIGHT


def make_timeline(record: TaskRecord) -> Timeline:
    """The time line of a record, until the task's end or until the record was made."""
    end = record.ended_at or record.projected_at
    axis = make_axis(record.started_at, end, [(pause.started_at, pause.ended_at) for pause in record.pauses])
    bands = tuple(_bands(axis, record.pauses))
    rows = max((band.row + 1 for band in bands if band.row is not None), default=0)
    top = 6 + BAND_LABEL_HEIGHT * rows
    lanes = tuple(
        _lane(axis, record, step, top + LANE_HEIGHT * number, end) for number, step in enumerate(record.steps)
    )
    return Timeline(lanes, bands, axis.ticks(), top, _description(record, bands))


def call_end(
    call: CallRecord, calls: Sequence[CallRecord], attempts: Sequence[AttemptRecord], end: datetime
) -> datetime:
    """When a call ended. One whose worker went away ended when its execution was lost; at the latest, when its step
    asked again, or when the attempt that it belongs to did."""
    if call.ended_at is not None:
        return call.ended_at
    if call.state is CallState.STARTED:
        return end
    later = [each.started_at for each in calls if each.started_at > call.started_at]
    closed = [each.ended_at for each in attempts if each.ended_at and each.ended_at >= call.started_at]
    executions = [each for attempt in attempts for each in attempt.executions if each.worker == call.worker]
    lost = [each.ended_at for each in executions if each.ended_at and each.ended_at >= call.started_at]
    return min([*later, *closed, *lost, end])


def _lane(axis: Axis, record: TaskRecord, step: StepRecord, top: int, end: datetime) -> Lane:
    calls = record.calls_of(step)
    attempts = tuple(bar for attempt in step.attempts for bar in _attempt_bars(axis, attempt, end))
    inner = tuple(_call_bar(axis, call, call_end(call, calls, step.attempts, end)) for call in calls)
    asked = f"{len(calls)} model call{'s' * (len(calls) > 1)}" if calls else ("tool" if step.tool else "")
    tried = f"{len(step.attempts)} attempts" if len(step.attempts) > 1 else ""
    figures = (_time_of(step, end), *page_words.money_cell(record.charges_of(step)).lines)
    name = f"{step.step} {step.name}"
    return Lane(top, name, " · ".join(filter(None, (asked, tried))), " · ".join(filter(None, figures)), attempts, inner)


def _time_of(step: StepRecord, end: datetime) -> str:
    """From its first attempt to the end of its last."""
    if not step.attempts:
        return ""
    return page_words.length((step.attempts[-1].ended_at or end) - step.attempts[0].scheduled_at)


def _attempt_bars(axis: Axis, attempt: AttemptRecord, end: datetime) -> Iterator[Bar]:
    """One for each execution that was lost, and one for what came after."""
    begun, ended = attempt.scheduled_at, attempt.ended_at or end
    lost = [each for each in attempt.executions if each.outcome is ExecutionOutcome.INTERRUPTED]
    for execution in lost:
        begun, until = max(begun, execution.begun_at), execution.ended_at or end
        hint = f"attempt {attempt.number}, execution {execution.number} interrupted, {_when(begun, until)}"
        yield _bar(axis, begun, until, execution.outcome.value, hint)
    following = [each.begun_at for each in attempt.executions if lost and each.number > lost[-1].number]
    if not lost or following:
        begun = following[0] if following else begun
        hint = f"attempt {attempt.number} {attempt.outcome.value}, {_when(begun, ended)}"
        yield _bar(axis, begun, ended, attempt.outcome.value, hint)


def _call_bar(axis: Axis, call: CallRecord, ended: datetime) -> Bar:
    used = call.usage
    counted = f"{page_words.tokens(used.input_tokens, used.known)} tokens in, "
    counted += f"{page_words.tokens(used.output_tokens, used.known)} out"
    hint = f"model call {call.turn}.{call.number} {call.state.value}, {_when(call.started_at, ended)}, {counted}"
    return _bar(axis, call.started_at, ended, call.state.value, hint)


def _bar(axis: Axis, first: datetime, last: datetime, state: str, hint: str) -> Bar:
    left, right = axis.x(first), axis.x(max(first, last))
    width = max(right - left, _NARROWEST_BAR)
    return Bar(_percent(min(left, 100.0 - width)), _percent(width), state, hint)


def _when(first: datetime, last: datetime) -> str:
    length = page_words.length(max(first, last) - first)
    return f"{page_words.clock_time(first)} to {page_words.clock_time(last)} UTC ({length})"


def _bands(axis: Axis, pauses: Iterable[Span]) -> Iterator[Band]:
    taken = [-_LABEL_WIDTH] * _MOST_LABEL_ROWS  # where the last label of each row ends
    shortened = {piece.started_at for piece in axis.breaks}
    for pause in pauses:
        left, right = axis.x(pause.started_at), axis.x(pause.ended_at)
        is_short = pause.started_at in shortened
        begins, anchor = _held(left, right)
        row = None
        if is_short or right - left >= _ROOM_FOR_A_LABEL:
            row = next((number for number, end in enumerate(taken) if end <= begins), None)
        if row is not None:
            taken[row] = begins + _LABEL_WIDTH
        text = page_words.length(pause.length)
        hint = f"{page_words.pause(pause)}, {_when(pause.started_at, pause.ended_at)}" + (", shortened" * is_short)
        yield Band(_percent(left), _percent(max(right - left, 0.1)), is_short, text, hint, row, anchor)


def _held(left: float, right: float) -> tuple[float, str]:
    """Where a label begins, and how it is held so that it stays inside the drawing."""
    middle = (left + right) / 2
    if middle < _LABEL_WIDTH / 2:
        return left, "start"
    if middle > 100.0 - _LABEL_WIDTH / 2:
        return right - _LABEL_WIDTH, "end"
    return middle - _LABEL_WIDTH / 2, "middle"


def _percent(value: float) -> float:
    return round(value, 3)


def _description(record: TaskRecord, bands: Sequence[Band]) -> str:
    vain = sum(call.rerun for call in record.calls)
    whole = (record.ended_at or record.projected_at) - record.started_at
    told = (
        f"{len(record.steps)} steps in {page_words.length(whole)}, {len(record.calls)} model calls, "
        f"{vain} of them in vain."
    )
    if bands:
        told += f" Pauses: {'; '.join(band.hint for band in bands)}."
    return told + " The table below has the same content."
