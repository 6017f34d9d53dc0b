"""Every failure of this package is a `Problem`: one sentence with the value in it, and the remedy."""

from __future__ import annotations

import errno


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


def of_a_file(error: OSError) -> Problem:
    """What a file that cannot be read, written or run means for the person; raises any other error again."""
    if error.filename is None:
        raise error
    remedies = {
        errno.EACCES: "Run this as the user who owns this checkout, or clone it anew.",
        errno.EPERM: "Run this as the user who owns this checkout, or clone it anew.",
        errno.EROFS: "It lies on a disk that is mounted read-only: use a checkout that can be written.",
        errno.ENOSPC: "Its disk is full: make room.",
    }
    why = (error.strerror or type(error).__name__).lower()
    return Problem(f"{error.filename}: {why}.", remedy=remedies.get(error.errno or 0, "Look at what is wrong with it."))


class ChildDied(Problem):
    """A program that should run has ended; the message holds its last log lines."""


class NotReady(Problem):
    """A program did not become ready before its deadline."""
