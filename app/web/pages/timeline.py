"""The time line of a task: a lane for each step, bars for attempts and model calls, bands for pauses.

Horizontal positions are percentages of the drawing's width, so that it fits a phone and a wide screen. Vertical ones
are pixels, because text does not shrink.
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

# The time axis maps instants to positions from 0 (left edge) to 100 (right edge).
#
# At a single scale, a long pause would compress all work into a few pixels. Therefore pauses are shortened, the longest
# first, while one pause is longer than a third of the time drawn to scale, or while all pauses drawn to scale are
# together longer than twice the work. A shortened pause is marked as a break; its width grows with the logarithm of its
# length. A pause that would be drawn to scale but wider than a longer, shortened one is shortened as well.

_BREAK_WIDTH = 6.0  # of the shortest break
_BREAK_WIDTH_PER_DECADE = 2.0  # added for a break that is ten times as long
_MAX_BREAKS_WIDTH = 42.0  # of all breaks together
_MAX_TICKS = 6
_CHARACTER_WIDTH = 1.8  # of a label, on a phone
_EDGE = 5.0  # a label closer than this to an edge is aligned to its mark, not centred
_STEPS = (
    *(timedelta(microseconds=1000 * number * power) for power in (1, 10, 100) for number in (1, 2, 5)),
    *(timedelta(seconds=number) for number in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=number) for number in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=number) for number in (1, 2, 4, 6, 12)),
)
_DAY = timedelta(days=1)
_NONE = timedelta(0)

Period = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the axis with one scale."""

    started_at: datetime
    ended_at: datetime
    left: float
    right: float
    shortened: bool = False

    @property
    def length(self) -> timedelta:
        """The duration of this part."""
        return self.ended_at - self.started_at

    def x(self, at: datetime) -> float:
        """The position of an instant within this part."""
        if self.length == _NONE:
            return self.left
        return self.left + (self.right - self.left) * ((at - self.started_at) / self.length)


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis; its label is the time since the task's start."""

    x: float
    label: str

    @property
    def anchor(self) -> str:
        """The label's alignment to the mark (SVG's text-anchor), which keeps it inside the drawing."""
        return "start" if self.x < _EDGE else "end" if self.x > 100.0 - _EDGE - self._width / 2 else "middle"

    @property
    def left(self) -> float:
        """The left end of the label."""
        return self.x - {"start": 0.0, "middle": self._width / 2, "end": self._width}[self.anchor]

    @property
    def right(self) -> float:
        """The right end of the label, with a gap of one character."""
        return self.left + self._width + _CHARACTER_WIDTH

    @property
    def _width(self) -> float:
        return _CHARACTER_WIDTH * len(self.label)


@dataclass(frozen=True)
class Axis:
    """The axis: adjoining pieces from the start to the end."""

    pieces: tuple[Piece, ...]

    def x(self, at: datetime) -> float:
        """The position of an instant; instants outside the axis are moved to its nearer edge."""
        for piece in self.pieces:
            if at < piece.ended_at:
                return piece.x(max(at, piece.started_at))
        return 100.0

    @property
    def breaks(self) -> tuple[Piece, ...]:
        """The shortened pauses."""
        return tuple(piece for piece in self.pieces if piece.shortened)

    def ticks(self) -> tuple[Tick, ...]:
        """Marks at round times, without those whose label would overlap the previous one."""
        ticks: list[Tick] = []
        for tick in self._round_times():
            if not ticks or tick.left >= ticks[-1].right:
                ticks.append(tick)
        return tuple(ticks)

    def _round_times(self) -> Iterator[Tick]:
        start = self.pieces[0].started_at
        to_scale = [piece for piece in self.pieces if not piece.shortened]
        step = _tick_step(sum((piece.length for piece in to_scale), _NONE))
        for piece in to_scale:
            number = -((start - piece.started_at) // step)
            while (at := start + number * step) <= piece.ended_at and piece.length > _NONE:
                yield Tick(round(piece.x(at), 3), elapsed(at - start, step))
                number += 1


def make_axis(start: datetime, end: datetime, pauses: Iterable[Period]) -> Axis:
    """The axis from `start` to `end`. `pauses` must be in order and must not overlap."""
    end = max(start, end)
    clipped = [(max(first, start), min(last, end)) for first, last in pauses]
    clipped = [(first, last) for first, last in clipped if first < last]
    return Axis(tuple(_make_pieces(start, end, _choose_breaks(end - start, clipped))))


def _choose_breaks(whole: timedelta, pauses: list[Period]) -> list[Period]:
    """The pauses to shorten, in order of time."""
    paused = sum((last - first for first, last in pauses), _NONE)  # pauses drawn to scale
    work, to_scale = whole - paused, whole
    breaks: list[Period] = []
    for pause in sorted(pauses, key=lambda pause: pause[0] - pause[1]):
        length = pause[1] - pause[0]
        if 3 * length <= to_scale and paused <= 2 * work and not _exceeds_a_break(length, to_scale, breaks):
            break
        breaks.append(pause)
        paused, to_scale = paused - length, to_scale - length
    return sorted(breaks)


def _exceeds_a_break(length: timedelta, to_scale: timedelta, breaks: list[Period]) -> bool:
    """Whether a pause of `length`, drawn to scale, would be wider than one of the breaks, all of which are longer."""
    widths = _break_widths(breaks)
    return bool(widths) and (100.0 - sum(widths)) * (length / to_scale) > min(widths)


def _break_widths(breaks: list[Period]) -> list[float]:
    """The width of each break, in the order of `breaks`."""
    if not breaks:
        return []
    lengths = [last - first for first, last in breaks]
    widths = [_BREAK_WIDTH + _BREAK_WIDTH_PER_DECADE * log10(length / min(lengths)) for length in lengths]
    return [width * min(1.0, _MAX_BREAKS_WIDTH / sum(widths)) for width in widths]


def _make_pieces(start: datetime, end: datetime, breaks: list[Period]) -> Iterator[Piece]:
    to_scale = end - start - sum((last - first for first, last in breaks), _NONE)
    widths = _break_widths(breaks)
    if to_scale == _NONE:  # only breaks: they fill the whole width
        widths = [100.0 * width / sum(widths) for width in widths]
    room, left, break_widths = 100.0 - sum(widths), 0.0, iter(widths)
    for shortened, (first, last) in _split(start, end, breaks):
        width = next(break_widths) if shortened else room * ((last - first) / (to_scale or _DAY))
        yield Piece(first, last, left, left + width, shortened)
        left += width


def _split(start: datetime, end: datetime, breaks: list[Period]) -> Iterator[tuple[bool, Period]]:
    """The time from `start` to `end` in order, as periods drawn to scale (False) and breaks (True)."""
    edges = [start, *(edge for pair in breaks for edge in pair), end]
    for number, period in enumerate(pairwise(edges)):
        shortened = number % 2 == 1
        if shortened or period[0] < period[1] or start == end:
            yield shortened, period


def _tick_step(to_scale: timedelta) -> timedelta:
    """The smallest round step that gives at most `_MAX_TICKS` marks."""
    round_step = next((step for step in _STEPS if to_scale <= _MAX_TICKS * step), None)
    return round_step or _DAY * max(1, -(-to_scale // (_MAX_TICKS * _DAY)))


LANE_HEIGHT = 42  # px: a line of text and the bars below it
BAND_LABEL_HEIGHT = 15
AXIS_HEIGHT = 26
_MAX_LABEL_ROWS = 3
_LABEL_WIDTH = 24.0  # of a band's duration, on a phone
_MIN_LABELLED_WIDTH = 8.0  # a band drawn to scale has a label only if it is at least this wide
_MIN_BAR_WIDTH = 0.5  # keeps very short work visible
_WASTED = ("failed", "interrupted", "lost")


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt or model call. `state` is its outcome or state, `hint` the text shown on hovering."""

    left: float
    width: float
    state: str
    hint: str

    @property
    def wasted(self) -> bool:
        """Whether the work had no result."""
        return self.state in _WASTED


@dataclass(frozen=True, slots=True)
class Lane:
    """One step; `top` is in pixels."""

    top: int
    name: str
    detail: str
    figures: str
    attempts: tuple[Bar, ...]
    calls: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """One pause. `row` is the row of its label, None if there is no room for one."""

    left: float
    width: float
    shortened: bool
    label: str
    hint: str
    row: int | None
    anchor: str

    @property
    def middle(self) -> float:
        """The position of the break mark."""
        return _percent(self.left + self.width / 2)

    @property
    def label_x(self) -> float:
        """The position of the label's anchor."""
        return {"start": self.left, "end": _percent(self.left + self.width)}.get(self.anchor, self.middle)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drawing. `top` and `bottom` are the upper and lower end of the lanes in pixels."""

    lanes: tuple[Lane, ...]
    bands: tuple[Band, ...]
    ticks: tuple[Tick, ...]
    top: int
    description: str

    @property
    def bottom(self) -> int:
        """The lower end of the lanes, where the axis starts."""
        return self.top + LANE_HEIGHT * len(self.lanes)

    @property
    def height(self) -> int:
        """The height of the whole drawing in pixels."""
        return self.bottom + AXIS_HEIGHT


def make_timeline(record: TaskRecord, digits: Digits) -> Timeline:
    """The time line of `record`, up to the task's end, or to the record's time if the task has not ended."""
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
    call_bars = tuple(_call_bar(axis, call, record.end_of(call) or end) for call in calls)
    details = (
        f"{len(calls)} model call{'s' * (len(calls) > 1)}" if calls else ("tool" if step.tool else ""),
        f"{len(step.attempts)} attempts" if len(step.attempts) > 1 else "",
    )
    figures = (_duration_of(step, end), *page_texts.money_cell(record.charges_of(step), digits).lines)
    name = f"{step.step} {step.name}"
    return Lane(top, name, " · ".join(filter(None, details)), " · ".join(filter(None, figures)), attempts, call_bars)


def _duration_of(step: StepRecord, end: datetime) -> str:
    """The time from the first attempt's scheduling to the end of the last one."""
    if not step.attempts:
        return ""
    return duration((step.attempts[-1].ended_at or end) - step.attempts[0].scheduled_at)


def _attempt_bars(axis: Axis, attempt: AttemptRecord, end: datetime) -> Iterator[Bar]:
    """A bar for each interrupted execution, and one for the execution after the last of them."""
    start, attempt_end = attempt.scheduled_at, attempt.ended_at or end
    interrupted = [run for run in attempt.executions if run.outcome is ExecutionOutcome.INTERRUPTED]
    for execution in interrupted:
        start, execution_end = max(start, execution.started_at), execution.ended_at or end
        hint = f"attempt {attempt.number}, execution {execution.number} interrupted, {_period(start, execution_end)}"
        yield _bar(axis, start, execution_end, execution.outcome.value, hint)
    later = [run.started_at for run in attempt.executions if interrupted and run.number > interrupted[-1].number]
    if not interrupted or later:
        start = later[0] if later else start
        hint = f"attempt {attempt.number} {attempt.outcome.value}, {_period(start, attempt_end)}"
        yield _bar(axis, start, attempt_end, attempt.outcome.value, hint)


def _call_bar(axis: Axis, call: CallRecord, ended: datetime) -> Bar:
    usage = call.usage
    counts = f"{tokens(usage.input_tokens, usage.basis)} tokens in, {tokens(usage.output_tokens, usage.basis)} out"
    period = _period(call.started_at, ended, estimated=call.ended_at is None)
    hint = f"model call {call.turn}.{call.number} {call.state.value}, {period}, {counts}"
    return _bar(axis, call.started_at, ended, call.state.value, hint)


def _bar(axis: Axis, first: datetime, last: datetime, state: str, hint: str) -> Bar:
    left, right = axis.x(first), axis.x(max(first, last))
    width = max(right - left, _MIN_BAR_WIDTH)
    return Bar(_percent(min(left, 100.0 - width)), _percent(width), state, hint)


def _period(first: datetime, last: datetime, *, estimated: bool = False) -> str:
    length = duration(max(first, last) - first, estimated=estimated)
    return f"{clock_time(first)} to {clock_time(last)} UTC ({length})"


def _bands(axis: Axis, pauses: Iterable[Span]) -> Iterator[Band]:
    row_ends = [-_LABEL_WIDTH] * _MAX_LABEL_ROWS  # the right end of the last label in each row
    break_starts = {piece.started_at for piece in axis.breaks}
    for pause in pauses:
        left, right = axis.x(pause.started_at), axis.x(pause.ended_at)
        shortened = pause.started_at in break_starts
        label_left, anchor = _place_label(left, right)
        row = None
        if shortened or right - left >= _MIN_LABELLED_WIDTH:
            row = next((number for number, end in enumerate(row_ends) if end <= label_left), None)
        if row is not None:
            row_ends[row] = label_left + _LABEL_WIDTH
        text = duration(pause.length)
        hint = f"{page_texts.pause_text(pause)}, {_period(pause.started_at, pause.ended_at)}"
        hint += ", shortened" if shortened else ""
        yield Band(_percent(left), _percent(max(right - left, 0.1)), shortened, text, hint, row, anchor)


def _place_label(left: float, right: float) -> tuple[float, str]:
    """The left end of a band's label, and the anchor that keeps the label inside the drawing."""
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
    text = f"{len(record.steps)} steps in {duration(whole)}, {len(record.calls)} model calls, {wasted} of them wasted."
    if bands:
        text += f" Pauses: {'; '.join(band.hint for band in bands)}."
    return text + " The table below has the same content."
