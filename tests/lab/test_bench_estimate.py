"""The estimate of unreported usage is near the sandbox's bill, and the documentation has the measured errors."""

from __future__ import annotations

import pytest

from lab.bench.estimate import Figures, measure_estimates
from tests.paths import ROOT

DOCUMENT = (ROOT / "docs" / "cost-model.md").read_text()
ALLOWED_PERCENT = 5.0


@pytest.fixture(scope="module")
def figures() -> list[Figures]:
    """The figures over all sample tickets; takes about ten seconds."""
    return measure_estimates()


def test_the_sum_is_near_the_bill(figures: list[Figures]) -> None:
    sums = {row.protocol: row.of_the_sum for row in figures if (row.counted, row.part) == ("as its family", "both")}
    assert set(sums) == {"openai", "anthropic"}
    assert all(abs(error) <= ALLOWED_PERCENT for error in sums.values()), sums


def test_counting_claude_as_openai_would_be_far_off(figures: list[Figures]) -> None:
    (as_openai,) = (row for row in figures if (row.counted, row.part) == ("as OpenAI", "both"))
    assert as_openai.of_the_sum < -2 * ALLOWED_PERCENT


def test_the_documentation_gives_the_measured_figures(figures: list[Figures]) -> None:
    for entry in figures:
        errors = f"{entry.of_the_sum:+.1f} | {entry.median:.1f} | {entry.p95:.1f} | {entry.worst:.1f}"
        row = f"| {entry.protocol} | {entry.counted} | {entry.part} | {entry.calls:,} | {entry.billed:,} | {errors} |"
        assert row in DOCUMENT, row
