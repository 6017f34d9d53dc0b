"""The result as a figure: what crashes cost, by their rate and by the length of the task. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.crash_cost import theory
from lab.crash_cost.svg import Axis, Panel, Scale, drawing, key, linear, text
from lab.crash_cost.table import TENTH, percent
from lab.crash_cost.theory import Arm
from lab.crash_cost.views import CrashCostView, LoadView

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
    panel.label((20, 100 * theory.expected_ratio(20)), "2 / (n + 1)", right=-2, up=16)
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
