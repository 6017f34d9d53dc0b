"""The result as a figure: what crashes cost, by their rate and by the length of the task. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from lab.crash_cost.table import TENTH, percent
from lab.crash_cost.trace import Arm, expected_ratio
from lab.crash_cost.views import CrashCostView, LoadView

# A small writer of SVG: panels with axes, lines and dots, readable in light and dark.

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
    """One axis: how a value becomes a place between 0 and 1, which values are named, and what they are."""

    place: Scale
    ticks: Sequence[tuple[float, str]]
    title: str


@dataclass(frozen=True)
class Panel:
    """A plot at (left, top) of the drawing. What is put into it is in values of its axes."""

    left: float
    top: float
    width: float
    height: float
    across: Axis
    up: Axis
    parts: list[str] = field(default_factory=list)

    def frame(self, title: str) -> None:
        """Title, grid, ticks and the names of the axes."""
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
        """A line through these values."""
        points = " L".join(f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in places)
        self.parts.append(f'<path class="line {look}" d="M{points}"/>')

    def dots(self, places: Iterable[Place], look: str, radius: float = 4) -> None:
        """A dot at each of these values."""
        self.parts.extend(
            f'<circle class="dot line {look}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="{radius}"/>'
            for x, y in places
        )

    def label(self, place: Place, text: str, *, right: float = 0, up: float = 0, anchor: str = "start") -> None:
        """A few words beside a value."""
        self._text(self._x(place[0]) + right, self._y(place[1]) - up, text, "soft", anchor)

    def _text(self, x: float, y: float, words: str, look: str, anchor: str = "start") -> None:
        self.parts.append(text(x, y, words, look, anchor))

    def _x(self, value: float) -> float:
        return self.left + self.width * self.across.place(value)

    def _y(self, value: float) -> float:
        return self.top + self.height * (1 - self.up.place(value))


def text(x: float, y: float, words: str, look: str = "", anchor: str = "start") -> str:
    """Words at a place of the drawing."""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def key(x: float, y: float, look: str, words: str, *, dot: bool) -> str:
    """One entry of the legend."""
    drawn = f'<path class="line {look}" d="M{x:.1f} {y - 4:.1f}h24"/>'
    if dot:
        drawn += f'<circle class="dot line {look}" cx="{x + 12:.1f}" cy="{y - 4:.1f}" r="4"/>'
    return drawn + text(x + 32, y, words)


def drawing(width: int, height: int, title: str, described: str, parts: Iterable[str]) -> str:
    """The whole file. `title` and `described` are for those who cannot see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    said = f"<title>{escape(title)}</title><desc>{escape(described)}</desc><style>{_STYLE}</style>"
    page = f'<rect class="page" width="{width}" height="{height}"/>'
    return "\n".join([head, said, page, *parts, "</svg>", ""])


def linear(end: float) -> Scale:
    """From zero to `end`."""
    return lambda value: value / end


_WIDTH, _HEIGHT = 1060, 385
_TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 110, 260, 220
_LEFTS = (52, 402, 752)
_RESTART, _RESUME, _THEORY = "a", "b", "c"
_LONGEST, _SHORTEST = 60, 2
_LENGTHS = (2, 5, 10, 20, 47)
_MOST_SHARE = 80


def figure(result: CrashCostView) -> str:
    """The SVG's text."""
    by_rate = [load for load in result.loads if len(load.traces) > 1][:2]
    panels = [_by_rate(load, left) for load, left in zip(by_rate, _LEFTS, strict=False)]
    panels.append(_by_length(result.loads, _LEFTS[len(panels)]))
    parts = [part for panel in panels for part in panel.parts]
    title = "What crashes make be paid twice"
    return drawing(_WIDTH, _HEIGHT, title, _described(result.loads), [text(16, 26, title, "title"), *_legend(), *parts])


def _legend() -> list[str]:
    return [
        key(16, 54, _RESTART, Arm.RESTART.words, dot=True),
        key(200, 54, _RESUME, Arm.RESUME.words, dot=True),
        key(384, 54, f"{_THEORY} dashed", "theory", dot=False),
    ]


def _by_rate(load: LoadView, left: float) -> Panel:
    rates = [100 * float(trace.rate) for trace in load.traces]
    top = 10 * math.ceil(max(rates) / 10)
    ticks = [(float(value), f"{value} %") for value in range(0, top + 1, 10)]
    across = Axis(linear(top), ticks, "tasks whose worker is killed once")
    panel = Panel(
        left, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT, across, Axis(linear(top), ticks, "paid twice, of the clean spend")
    )
    panel.frame(f"{load.title} ({round(float(load.model_calls), 1):g} model calls)")
    panel.line([(0, 0), (top, top)], f"{_THEORY} dashed")
    panel.label((top * 0.7, top * 0.7), "upper bound", right=-10, anchor="end")
    for look, arms in (
        (_RESTART, [trace.restart for trace in load.traces]),
        (_RESUME, [trace.resume for trace in load.traces]),
    ):
        seen = [(rate, 100 * float(arm.share)) for rate, arm in zip(rates, arms, strict=True)]
        panel.line([(0, 0), *seen], look)
        panel.dots(seen, look)
        panel.label(seen[-1], percent(arms[-1].share), right=-8, up=8, anchor="end")
    return panel


def _by_length(loads: Sequence[LoadView], left: float) -> Panel:
    seen = sorted((float(load.model_calls), 100 * float(load.ratio)) for load in loads if load.ratio)
    across = Axis(_logarithmic(), [(float(length), str(length)) for length in _LENGTHS], "model calls of a task")
    ticks = [(float(value), f"{value} %") for value in (0, 10, 20, 40, 60, 80)]
    up = Axis(linear(_MOST_SHARE), ticks, "resume's repeated spend, of restart's")
    panel = Panel(left, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT, across, up)
    panel.frame("by the length of the task")
    curve = [_SHORTEST * (_LONGEST / _SHORTEST) ** (part / 60) for part in range(61)]
    panel.line([(calls, 100 * 2 / (calls + 1)) for calls in curve], f"{_THEORY} dashed")
    panel.label((20, 100 * expected_ratio(20)), "2 / (n + 1)", right=-2, up=16)
    panel.line([(_SHORTEST, 100 * float(TENTH)), (_LONGEST, 100 * float(TENTH))], "c")
    panel.label((_SHORTEST, 100 * float(TENTH)), "a tenth", right=4, up=6)
    panel.dots(seen, _RESUME)
    if seen:
        panel.label(seen[0], f"{seen[0][1]:.1f} %", right=8, up=8)
        panel.label(seen[-1], f"{seen[-1][1]:.1f} %", right=-8, up=-6, anchor="end")
    return panel


def _logarithmic() -> Scale:
    span = math.log(_LONGEST / _SHORTEST)
    return lambda value: math.log(value / _SHORTEST) / span


def _described(loads: Sequence[LoadView]) -> str:
    """The same in words."""
    return " ".join(
        f"{load.title}, {percent(trace.rate)} killed: of the clean spend restart repeats "
        f"{percent(trace.restart.share)}, resume {percent(trace.resume.share)}."
        for load in loads
        for trace in load.traces
    )
