"""The estimate of what providers do not report is near the sandbox's bill, and the documentation says how near."""

from __future__ import annotations

import pytest

from lab.bench.estimate import Figures, measure_estimates
from tests.paths import ROOT

SAID = (ROOT / "docs" / "cost-model.md").read_text()
ALLOWED_PERCENT = 5.0


@pytest.fixture(scope="module")
def figures() -> list[Figures]:
    """Measured over all sample tickets, which takes some ten seconds."""
    return measure_estimates()


def test_the_sum_is_near_the_bill(figures: list[Figures]) -> None:
    sums = {
        each.protocol: each.of_the_sum for each in figures if (each.counted, each.part) == ("as its family", "both")
    }
    assert set(sums) == {"openai", "anthropic"}
    assert all(abs(error) <= ALLOWED_PERCENT for error in sums.values()), sums


def test_counting_claude_as_openai_would_be_far_off(figures: list[Figures]) -> None:
    (careless,) = (each for each in figures if (each.counted, each.part) == ("as OpenAI", "both"))
    assert careless.of_the_sum < -2 * ALLOWED_PERCENT


def test_the_documentation_gives_the_measured_figures(figures: list[Figures]) -> None:
    for each in figures:
        errors = f"{each.of_the_sum:+.1f} | {each.median:.1f} | {each.p95:.1f} | {each.worst:.1f}"
        row = f"| {each.protocol} | {each.counted} | {each.part} | {each.calls:,} | {each.billed:,} | {errors} |"
        assert row in SAID, row
