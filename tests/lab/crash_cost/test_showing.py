"""Figure and tables: the SVG is well-formed, readable in light and dark, and both have the same figures."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

from lab.crash_cost import figure, table
from lab.crash_cost.figure import Axis, Panel, linear
from lab.crash_cost.trace import Point
from lab.crash_cost.views import CrashCostView
from tests.lab.crash_cost.kit import clean_run, load_view, result

SVG = "{http://www.w3.org/2000/svg}"
TWO = clean_run("a", "b")
POINTS = (Point("a", 0.5, 2, False), Point("b", 0.99, 4, False))


@pytest.fixture
def experiment() -> CrashCostView:
    """Two loads at three rates."""
    load = load_view(POINTS, ["a-1", "a-2", "b-1", "b-2", "b-3"], ["a-2"], TWO, rates=3)
    return result(load, load.model_copy(update={"title": "mailboxes <of> & letters"}))


def test_the_figure_is_well_formed_and_has_a_description(experiment: CrashCostView) -> None:
    root = ElementTree.fromstring(figure.figure(experiment))  # noqa: S314 - our own
    words = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert root.findtext(f"{SVG}title") == "Model spend repeated because of crashes"
    assert "restart repeats 83.3 %, resume 16.7 %" in (root.findtext(f"{SVG}desc") or "")
    assert "mailboxes <of> & letters (3 model calls)" in words
    assert {"restart from zero", "durable resume", "theory", "upper bound", "83.3 %", "16.7 %"} <= set(words)


def test_the_figure_has_all_colours_for_dark_pages(experiment: CrashCostView) -> None:
    text = figure.figure(experiment)
    light, _, dark = text.partition("@media (prefers-color-scheme: dark)")
    names = re.findall(r"(--[a-z]+):", light)
    assert names
    assert set(names) == set(re.findall(r"(--[a-z]+):", dark))


def test_everything_lies_within_the_drawing(experiment: CrashCostView) -> None:
    root = ElementTree.fromstring(figure.figure(experiment))  # noqa: S314 - our own
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    assert len(dots) == 2 + 2 * 2 * 3 + 2  # legend; two panels of two lines with three dots; one dot for each length
    assert all(0 < x < width and 0 < y < height for x, y in dots)


def test_a_value_lies_where_its_axes_say() -> None:
    panel = Panel(100, 50, 200, 100, Axis(linear(10), [], ""), Axis(linear(4), [], ""))
    panel.dots([(0, 0), (5, 4)], "a")
    assert re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', "".join(panel.parts)) == [("100.0", "150.0"), ("200.0", "50.0")]


def test_the_tables_have_the_figures(experiment: CrashCostView) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    table.show(console, experiment)
    text = console.export_text()
    assert text.count("83.3 %") == 2 * 3
    assert "while the model works" in text
    assert "resume repeats 20.0 % of what restart does, more than a tenth" in text
