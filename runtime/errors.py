"""Errors for the person at the keyboard: one sentence with the value in it, the remedy, and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from runtime.signals import Stopped

_INTERRUPTED, _TERMINATED = 130, 143


class UserError(Exception):
    """A failure that the person who gave the command can correct. `remedy` says how; both are plain sentences."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Message and remedy, as printed."""
        between = "" if self.remedy.startswith("\n") else " "
        return f"{self.message}{between}{self.remedy}".strip()


def file_error(error: OSError) -> UserError:
    """A file that cannot be read, written or run, as a UserError with its remedy; raises any other error again."""
    if error.filename is None:
        raise error
    remedies = {
        errno.EACCES: "Run this as the user who owns this checkout, or clone it anew.",
        errno.EPERM: "Run this as the user who owns this checkout, or clone it anew.",
        errno.EROFS: "It lies on a disk that is mounted read-only: use a checkout that can be written.",
        errno.ENOSPC: "Its disk is full: make room.",
    }
    why = (error.strerror or type(error).__name__).lower()
    return UserError(
        f"{error.filename}: {why}.", remedy=remedies.get(error.errno or 0, "Look at what is wrong with it.")
    )


class ChildDied(UserError):
    """A program that should be running has ended; the message holds its last log lines."""


class NotReady(UserError):
    """A program did not become ready before its deadline."""


def exit_code(run: Callable[[], int], *, program: str = "refund-agent", interrupted: str = "") -> int:
    """Runs a command and returns its exit code: 1 for a UserError or an unusable file, which become one line on stderr.

    `program` begins that line. `interrupted` is printed after Ctrl-C (130); SIGTERM and SIGHUP give 143.
    """
    try:
        return run()
    except UserError as error:
        problem = error
    except OSError as error:
        problem = file_error(error)
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return _INTERRUPTED
    except Stopped:
        return _TERMINATED
    print(f"{program}: {problem}", file=sys.stderr)
    return 1
