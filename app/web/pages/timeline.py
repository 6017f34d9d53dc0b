"""The time line of a task: a lane a step, bars for its attempts and model calls, bands for its pauses. Pure.

Across, everything is in percent of the drawing's width, so that one drawing fits a phone and a wide screen; down, in
pixels, since text does not shrink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import log10

from app.dapr.history.executions import ExecutionOutcome
from app.dapr.history.times import Span
from app.domain.formatting import Digits, clock_time, duration, elapsed, tokens
from app.ledger.store.task_record import AttemptRecord, StepRecord, TaskRecord
from app.pricing.charge_types import CallRecord
from app.web.pages import page_texts

# The time axis: where an instant lies between the left edge (0) and the right one (100).
#
# A long pause would press all work into a few pixels. So pauses are shortened, the longest first, while one of them is
# longer than a third of what is drawn to scale, or while all of them together are longer than twice the work. What is
# shortened is marked as a break, and is the wider the longer it was, by its logarithm. A shorter pause is never drawn
# wider than a longer one: one that would be, to scale, is shortened as well.

_BREAK_WIDTH = 6.0  # of the shortest pause that is shortened
_WIDER = 2.0  # of one that is ten times as long
_BREAKS_WIDTH = 42.0  # of all of them at most
_MOST_TICKS = 6
_CHARACTER_WIDTH = 1.8  # of a label, on a phone
_EDGE = 5.0  # a label this near to an edge begins or ends there
_STEPS = (
    *(timedelta(microseconds=1000 * number * power) for power in (1, 10, 100) for number in (1, 2, 5)),
    *(timedelta(seconds=number) for number in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=number) for number in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=number) for number in (1, 2, 4, 6, 12)),
)
_DAY = timedelta(days=1)
_NONE = timedelta(0)

Stretch = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time with one scale."""

    started_at: datetime
    ended_at: datetime
    left: float
    right: float
    shortened: bool = False

    @property
    def length(self) -> timedelta:
        """How long it was."""
        return self.ended_at - self.started_at

    def x(self, at: datetime) -> float:
        """Where an instant of this stretch lies."""
        if self.length == _NONE:
            return self.left
        return self.left + (self.right - self.left) * ((at - self.started_at) / self.length)


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis: so long after the start. `anchor` holds its label inside the drawing."""

    x: float
    label: str

    @property
    def anchor(self) -> str:
        """Which end of the label is at the mark."""
        return "start" if self.x < _EDGE else "end" if self.x > 100.0 - _EDGE - self._width / 2 else "middle"

    @property
    def left(self) -> float:
        """Where its label begins."""
        return self.x - {"start": 0.0, "middle": self._width / 2, "end": self._width}[self.anchor]

    @property
    def right(self) -> float:
        """Where its label ends, with some air."""
        return self.left + self._width + _CHARACTER_WIDTH

    @property
    def _width(self) -> float:
        return _CHARACTER_WIDTH * len(self.label)


@dataclass(frozen=True)
class Axis:
    """Pieces without gap from the start to the end."""

    pieces: tuple[Piece, ...]

    def x(self, at: datetime) -> float:
        """Where an instant lies; one before the start lies at the left edge, one after the end at the right."""
        for piece in self.pieces:
            if at < piece.ended_at:
                return piece.x(max(at, piece.started_at))
        return 100.0

    @property
    def breaks(self) -> tuple[Piece, ...]:
        """The shortened pauses."""
        return tuple(piece for piece in self.pieces if piece.shortened)

    def ticks(self) -> tuple[Tick, ...]:
        """Marks at round times, as many as have room for their labels."""
        ticks: list[Tick] = []
        for tick in self._round_times():
            if not ticks or tick.left >= ticks[-1].right:
                ticks.append(tick)
        return tuple(ticks)

    def _round_times(self) -> Iterator[Tick]:
        start = self.pieces[0].started_at
        drawn = [piece for piece in self.pieces if not piece.shortened]
        step = _step(sum((piece.length for piece in drawn), _NONE))
        for piece in drawn:
            number = -((start - piece.started_at) // step)
            while (at := start + number * step) <= piece.ended_at and piece.length > _NONE:
                yield Tick(round(piece.x(at), 3), elapsed(at - start, step))
                number += 1


def make_axis(start: datetime, end: datetime, pauses: Iterable[Stretch]) -> Axis:
    """The axis from `start` to `end`; pauses are in order and do not overlap."""
    end = max(start, end)
    within = [(max(first, start), min(last, end)) for first, last in pauses]
    within = [(first, last) for first, last in within if first < last]
    return Axis(tuple(_laid_out(start, end, _to_shorten(end - start, within))))


def _to_shorten(whole: timedelta, pauses: list[Stretch]) -> list[Stretch]:
    rest = sum((last - first for first, last in pauses), _NONE)
    work, drawn = whole - rest, whole
    shortened: list[Stretch] = []
    for pause in sorted(pauses, key=lambda pause: pause[0] - pause[1]):
        long = pause[1] - pause[0]
        if 3 * long <= drawn and rest <= 2 * work and not _too_wide(long, drawn, shortened):
            break
        shortened.append(pause)
        rest, drawn = rest - long, drawn - long
    return sorted(shortened)


def _too_wide(long: timedelta, drawn: timedelta, shortened: list[Stretch]) -> bool:
    """Whether a pause, drawn to scale, would be wider than one of those that are shortened, which are longer."""
    widths = _widths(shortened)
    return bool(widths) and (100.0 - sum(widths)) * (long / drawn) > min(widths)


def _widths(breaks: list[Stretch]) -> list[float]:
    """Of the shortened pauses, each in its place."""
    if not breaks:
        return []
    lengths = [last - first for first, last in breaks]
    widths = [_BREAK_WIDTH + _WIDER * log10(length / min(lengths)) for length in lengths]
    return [width * min(1.0, _BREAKS_WIDTH / sum(widths)) for width in widths]


def _laid_out(start: datetime, end: datetime, breaks: list[Stretch]) -> Iterator[Piece]:
    drawn = end - start - sum((last - first for first, last in breaks), _NONE)
    widths = _widths(breaks)
    if drawn == _NONE:  # nothing but pauses: they have all the room
        widths = [100.0 * width / sum(widths) for width in widths]
    room, left, narrow = 100.0 - sum(widths), 0.0, iter(widths)
    for shortened, (first, last) in _in_turn(start, end, breaks):
        width = next(narrow) if shortened else room * ((last - first) / (drawn or _DAY))
        yield Piece(first, last, left, left + width, shortened)
        left += width


def _in_turn(start: datetime, end: datetime, breaks: list[Stretch]) -> Iterator[tuple[bool, Stretch]]:
    """What is drawn to scale and what is not, one after the other."""
    edges = [start, *(edge for pair in breaks for edge in pair), end]
    for number, stretch in enumerate(pairwise(edges)):
        shortened = number % 2 == 1
        if shortened or stretch[0] < stretch[1] or start == end:
            yield shortened, stretch


def _step(drawn: timedelta) -> timedelta:
    found = next((step for step in _STEPS if drawn <= _MOST_TICKS * step), None)
    return found or _DAY * max(1, -(-drawn // (_MOST_TICKS * _DAY)))


LANE_HEIGHT = 42  # px: a line of text, and the bars below it
BAND_LABEL_HEIGHT = 15
AXIS_HEIGHT = 26
_MOST_LABEL_ROWS = 3
_LABEL_WIDTH = 24.0  # of a band's length, on a phone
_ROOM_FOR_A_LABEL = 8.0
_NARROWEST_BAR = 0.5  # what took no time that shows is still shown
_WASTED = ("failed", "interrupted", "lost")


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt or model call. `state` is its own word for how it ended; `hint` says all of it."""

    left: float
    width: float
    state: str
    hint: str

    @property
    def wasted(self) -> bool:
        """Whether nothing came of it."""
        return self.state in _WASTED


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


def make_timeline(record: TaskRecord, digits: Digits) -> Timeline:
    """The time line of a record, until the task's end or until the record was made."""
    end = record.ended_at or record.projected_at
    axis = make_axis(record.started_at, end, [(pause.started_at, pause.ended_at) for pause in record.pauses])
    bands = tuple(_bands(axis, record.pauses))
    rows = max((band.row + 1 for band in bands if band.row is not None), default=0)
    top = 6 + BAND_LABEL_HEIGHT * rows
    lanes = tuple(
        _lane(axis, record, step, top + LANE_HEIGHT * number, end, digits) for number, step in enumerate(record.steps)
    )
    return Timeline(lanes, bands, axis.ticks(), top, _description(record, bands))


def _lane(axis: Axis, record: TaskRecord, step: StepRecord, top: int, end: datetime, digits: Digits) -> Lane:
    calls = record.calls_of(step)
    attempts = tuple(bar for attempt in step.attempts for bar in _attempt_bars(axis, attempt, end))
    inner = tuple(_call_bar(axis, call, record.end_of(call) or end) for call in calls)
    asked = f"{len(calls)} model call{'s' * (len(calls) > 1)}" if calls else ("tool" if step.tool else "")
    tried = f"{len(step.attempts)} attempts" if len(step.attempts) > 1 else ""
    figures = (_time_of(step, end), *page_texts.money_cell(record.charges_of(step), digits).lines)
    name = f"{step.step} {step.name}"
    return Lane(top, name, " · ".join(filter(None, (asked, tried))), " · ".join(filter(None, figures)), attempts, inner)


def _time_of(step: StepRecord, end: datetime) -> str:
    """From its first attempt to the end of its last."""
    if not step.attempts:
        return ""
    return duration((step.attempts[-1].ended_at or end) - step.attempts[0].scheduled_at)


def _attempt_bars(axis: Axis, attempt: AttemptRecord, end: datetime) -> Iterator[Bar]:
    """One for each execution that was lost, and one for what came after."""
    begun, ended = attempt.scheduled_at, attempt.ended_at or end
    lost = [run for run in attempt.executions if run.outcome is ExecutionOutcome.INTERRUPTED]
    for execution in lost:
        begun, until = max(begun, execution.started_at), execution.ended_at or end
        hint = f"attempt {attempt.number}, execution {execution.number} interrupted, {_when(begun, until)}"
        yield _bar(axis, begun, until, execution.outcome.value, hint)
    following = [run.started_at for run in attempt.executions if lost and run.number > lost[-1].number]
    if not lost or following:
        begun = following[0] if following else begun
        hint = f"attempt {attempt.number} {attempt.outcome.value}, {_when(begun, ended)}"
        yield _bar(axis, begun, ended, attempt.outcome.value, hint)


def _call_bar(axis: Axis, call: CallRecord, ended: datetime) -> Bar:
    used = call.usage
    counted = f"{tokens(used.input_tokens, used.basis)} tokens in, "
    counted += f"{tokens(used.output_tokens, used.basis)} out"
    when = _when(call.started_at, ended, estimated=call.ended_at is None)
    hint = f"model call {call.turn}.{call.number} {call.state.value}, {when}, {counted}"
    return _bar(axis, call.started_at, ended, call.state.value, hint)


def _bar(axis: Axis, first: datetime, last: datetime, state: str, hint: str) -> Bar:
    left, right = axis.x(first), axis.x(max(first, last))
    width = max(right - left, _NARROWEST_BAR)
    return Bar(_percent(min(left, 100.0 - width)), _percent(width), state, hint)


def _when(first: datetime, last: datetime, *, estimated: bool = False) -> str:
    length = duration(max(first, last) - first, estimated=estimated)
    return f"{clock_time(first)} to {clock_time(last)} UTC ({length})"


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
        text = duration(pause.length)
        hint = f"{page_texts.pause(pause)}, {_when(pause.started_at, pause.ended_at)}" + (", shortened" * is_short)
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
    wasted = sum(call.wasted for call in record.calls)
    whole = (record.ended_at or record.projected_at) - record.started_at
    told = f"{len(record.steps)} steps in {duration(whole)}, {len(record.calls)} model calls, {wasted} of them wasted."
    if bands:
        told += f" Pauses: {'; '.join(band.hint for band in bands)}."
    return told + " The table below has the same content."
