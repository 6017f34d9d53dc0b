"""Every failure of this package is a `Problem`: one sentence with the value in it, and the remedy."""

from __future__ import annotations


class Problem(Exception):
    """Something a person can mend. `remedy` says how; both are plain sentences."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Message and remedy, as printed."""
        between = "" if self.remedy.startswith("\n") else " "
        return f"{self.message}{between}{self.remedy}".strip()


class ChildDied(Problem):
    """A program that should run has ended; the message holds its last log lines."""


class NotReady(Problem):
    """A program did not become ready before its deadline."""
