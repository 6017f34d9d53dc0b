"""A step prints its progress and its result, to a terminal and to a log file."""

from __future__ import annotations

import io

import pytest

from runtime.progress import Step


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Always True."""
        return True


def test_plain_output_is_whole_lines_and_not_too_many() -> None:
    out = io.StringIO()
    # Read at the start, by each update (twice if it is printed), and at the end.
    clock = iter((0.0, 5.0, 21.0, 22.0, 23.0, 30.2))
    with Step("build", out=out, clock=lambda: next(clock)) as step:
        step.update("1 package")
        step.update("2 packages")
        step.update("3 packages")
    assert out.getvalue().splitlines() == [
        "build ...",
        "build: 2 packages (22 s)",
        "build: 3 packages, done (30.2 s)",
    ]


def test_a_terminal_line_is_rewritten_in_place() -> None:
    out = Terminal()
    clock = iter(float(second) for second in range(100))
    with Step("build", out=out, clock=lambda: next(clock)) as step:
        step.update("1 package")
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().count("\r\x1b[K") == 3


def test_a_failure_is_printed() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="boom"), Step("build", out=out):
        raise ValueError("boom")
    assert "build: failed" in out.getvalue()
