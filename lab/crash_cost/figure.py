"""Draws the result as SVG: the cost of crashes by their rate and by the length of the task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from lab.crash_cost.table import TENTH, percent
from lab.crash_cost.trace import Arm, expected_ratio
from lab.crash_cost.views import CrashCostView, LoadView

# Readable on light and dark pages.
_STYLE = """
svg { --ink: #1f2328; --soft: #59636e; --grid: #d1d9e0; --page: #ffffff; --a: #bc4c00; --b: #0969da; --c: #59636e }
@media (prefers-color-scheme: dark) {
  svg { --ink: #f0f6fc; --soft: #9198a1; --grid: #3d444d; --page: #0d1117; --a: #f0883e; --b: #58a6ff; --c: #9198a1 }
}
text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.soft { fill: var(--soft); font-size: 12px }
.title { font-weight: 600; font-size: 14px }
.page { fill: var(--page) }
.grid { stroke: var(--grid); stroke-width: 1 }
.line { fill: none; stroke-width: 2 }
.dashed { stroke-dasharray: 5 4; stroke-width: 1.5 }
.a { stroke: var(--a) } .b { stroke: var(--b) } .c { stroke: var(--c) }
.dot.a { fill: var(--a) } .dot.b { fill: var(--b) } .dot.c { fill: var(--page) }
"""

Place = tuple[float, float]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Axis:
    """An axis: its scale from values to 0..1, its ticks with their labels, and its title."""

    place: Scale
    ticks: Sequence[tuple[float, str]]
    title: str


@dataclass(frozen=True)
class Panel:
    """A plot at (left, top) of the drawing. Its methods take values of its axes."""

    left: float
    top: float
    width: float
    height: float
    across: Axis
    up: Axis
    parts: list[str] = field(default_factory=list)

    def frame(self, title: str) -> None:
        """Draws title, grid, ticks and axis titles."""
        self._text(self.left, self.top - 30, title, "title")
        self._text(self.left, self.top - 12, self.up.title, "soft")
        for value, name in self.up.ticks:
            y = self._y(value)
            self.parts.append(f'<path class="grid" d="M{self.left:.1f} {y:.1f}h{self.width:.1f}"/>')
            self._text(self.left - 6, y + 4, name, "soft", "end")
        for value, name in self.across.ticks:
            self._text(self._x(value), self.top + self.height + 18, name, "soft", "middle")
        self._text(self.left + self.width / 2, self.top + self.height + 38, self.across.title, "soft", "middle")

    def line(self, places: Iterable[Place], look: str) -> None:
        """Draws a line through these points."""
        points = " L".join(f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in places)
        self.parts.append(f'<path class="line {look}" d="M{points}"/>')

    def dots(self, places: Iterable[Place], look: str, radius: float = 4) -> None:
        """Draws a dot at each of these points."""
        self.parts.extend(
            f'<circle class="dot line {look}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="{radius}"/>'
            for x, y in places
        )

    def label(self, place: Place, text: str, *, right: float = 0, up: float = 0, anchor: str = "start") -> None:
        """Draws a short text beside a point."""
        self._text(self._x(place[0]) + right, self._y(place[1]) - up, text, "soft", anchor)

    def _text(self, x: float, y: float, words: str, look: str, anchor: str = "start") -> None:
        self.parts.append(text(x, y, words, look, anchor))

    def _x(self, value: float) -> float:
        return self.left + self.width * self.across.place(value)

    def _y(self, value: float) -> float:
        return self.top + self.height * (1 - self.up.place(value))


def text(x: float, y: float, words: str, look: str = "", anchor: str = "start") -> str:
    """A text at a position of the drawing."""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def key(x: float, y: float, look: str, words: str, *, dot: bool) -> str:
    """An entry of the legend."""
    entry = f'<path class="line {look}" d="M{x:.1f} {y - 4:.1f}h24"/>'
    if dot:
        entry += f'<circle class="dot line {look}" cx="{x + 12:.1f}" cy="{y - 4:.1f}" r="4"/>'
    return entry + text(x + 32, y, words)


def drawing(width: int, height: int, title: str, description: str, parts: Iterable[str]) -> str:
    """The SVG document. `title` and `description` are for screen readers."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    texts = f"<title>{escape(title)}</title><desc>{escape(description)}</desc><style>{_STYLE}</style>"
    page = f'<rect class="page" width="{width}" height="{height}"/>'
    return "\n".join([head, texts, page, *parts, "</svg>", ""])


def linear(end: float) -> Scale:
    """A linear scale from zero to `end`."""
    return lambda value: value / end


_WIDTH, _HEIGHT = 1060, 385
_TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 110, 260, 220
_LEFTS = (52, 402, 752)
_RESTART, _RESUME, _THEORY = "a", "b", "c"
_LONGEST, _SHORTEST = 60, 2
_LENGTHS = (2, 5, 10, 20, 47)
_MAX_SHARE = 80


def figure(result: CrashCostView) -> str:
    """The figure as SVG text."""
    by_rate = [load for load in result.loads if len(load.traces) > 1][:2]
    panels = [_rate_panel(load, left) for load, left in zip(by_rate, _LEFTS, strict=False)]
    panels.append(_length_panel(result.loads, _LEFTS[len(panels)]))
    parts = [part for panel in panels for part in panel.parts]
    title = "Model spend repeated because of crashes"
    return drawing(
        _WIDTH, _HEIGHT, title, _description(result.loads), [text(16, 26, title, "title"), *_legend(), *parts]
    )


def _legend() -> list[str]:
    return [
        key(16, 54, _RESTART, Arm.RESTART.words, dot=True),
        key(200, 54, _RESUME, Arm.RESUME.words, dot=True),
        key(384, 54, f"{_THEORY} dashed", "theory", dot=False),
    ]


def _rate_panel(load: LoadView, left: float) -> Panel:
    rates = [100 * float(trace.rate) for trace in load.traces]
    top = 10 * math.ceil(max(rates) / 10)
    ticks = [(float(value), f"{value} %") for value in range(0, top + 1, 10)]
    across = Axis(linear(top), ticks, "tasks whose worker is killed once")
    panel = Panel(
        left, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT, across, Axis(linear(top), ticks, "repeated, of the clean spend")
    )
    panel.frame(f"{load.title} ({round(float(load.model_calls), 1):g} model calls)")
    panel.line([(0, 0), (top, top)], f"{_THEORY} dashed")
    panel.label((top * 0.7, top * 0.7), "upper bound", right=-10, anchor="end")
    for look, arms in (
        (_RESTART, [trace.restart for trace in load.traces]),
        (_RESUME, [trace.resume for trace in load.traces]),
    ):
        shares = [(rate, 100 * float(arm.share)) for rate, arm in zip(rates, arms, strict=True)]
        panel.line([(0, 0), *shares], look)
        panel.dots(shares, look)
        panel.label(shares[-1], percent(arms[-1].share), right=-8, up=8, anchor="end")
    return panel


def _length_panel(loads: Sequence[LoadView], left: float) -> Panel:
    ratios = sorted((float(load.model_calls), 100 * float(load.ratio)) for load in loads if load.ratio)
    across = Axis(_logarithmic(), [(float(length), str(length)) for length in _LENGTHS], "model calls of a task")
    ticks = [(float(value), f"{value} %") for value in (0, 10, 20, 40, 60, 80)]
    up = Axis(linear(_MAX_SHARE), ticks, "resume's repeated spend, of restart's")
    panel = Panel(left, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT, across, up)
    panel.frame("by the length of the task")
    curve = [_SHORTEST * (_LONGEST / _SHORTEST) ** (part / 60) for part in range(61)]
    panel.line([(calls, 100 * 2 / (calls + 1)) for calls in curve], f"{_THEORY} dashed")
    panel.label((20, 100 * expected_ratio(20)), "2 / (n + 1)", right=-2, up=16)
    panel.line([(_SHORTEST, 100 * float(TENTH)), (_LONGEST, 100 * float(TENTH))], "c")
    panel.label((_SHORTEST, 100 * float(TENTH)), "a tenth", right=4, up=6)
    panel.dots(ratios, _RESUME)
    if ratios:
        panel.label(ratios[0], f"{ratios[0][1]:.1f} %", right=8, up=8)
        panel.label(ratios[-1], f"{ratios[-1][1]:.1f} %", right=-8, up=-6, anchor="end")
    return panel


def _logarithmic() -> Scale:
    span = math.log(_LONGEST / _SHORTEST)
    return lambda value: math.log(value / _SHORTEST) / span


def _description(loads: Sequence[LoadView]) -> str:
    """The figures of the drawing as sentences."""
    return " ".join(
        f"{load.title}, {percent(trace.rate)} killed: of the clean spend restart repeats "
        f"{percent(trace.restart.share)}, resume {percent(trace.resume.share)}."
        for load in loads
        for trace in load.traces
    )
