"""The time axis: where an instant lies between the left edge (0) and the right one (100). Pure.

A long pause would press all work into a few pixels. So pauses are shortened, the longest first, while one of them is
longer than a third of what is drawn to scale, or while all of them together are longer than twice the work. What is
shortened is marked as a break, and is the wider the longer it was, by its logarithm. A shorter pause is never drawn
wider than a longer one: one that would be, to scale, is shortened as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import log10

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
    edges = [start, *(edge for each in breaks for edge in each), end]
    for number, stretch in enumerate(pairwise(edges)):
        shortened = number % 2 == 1
        if shortened or stretch[0] < stretch[1] or start == end:
            yield shortened, stretch


def _step(drawn: timedelta) -> timedelta:
    found = next((step for step in _STEPS if drawn <= _MOST_TICKS * step), None)
    return found or _DAY * max(1, -(-drawn // (_MOST_TICKS * _DAY)))


def elapsed(since: timedelta, step: timedelta) -> str:
    """A time since the start, as finely as ticks that lie `step` apart need: `0.25 s`, `1:05`, `2:13:13`."""
    places = len(f"{step.microseconds:06d}".rstrip("0"))
    fraction = f".{since.microseconds:06d}"[: places + 1] if places else ""
    minutes, seconds = divmod(since.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if since < timedelta(minutes=1):
        return f"{seconds}{fraction} s"
    if since < timedelta(hours=1):
        return f"{minutes}:{seconds:02d}{fraction}"
    return (f"{since.days:,} d " if since.days else "") + f"{hours}:{minutes:02d}:{seconds:02d}{fraction}"
