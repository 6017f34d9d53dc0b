"""A small writer of SVG: panels with axes, lines and dots, readable in light and dark. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

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
