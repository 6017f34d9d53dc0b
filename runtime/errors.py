"""Errors for the person who runs a command: message, remedy and exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from runtime.signals import Stopped

_INTERRUPTED, _TERMINATED = 130, 143


class UserError(Exception):
    """A failure that the user can correct. `remedy` says how; both texts are sentences."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Message and remedy, as printed."""
        between = "" if self.remedy.startswith("\n") else " "
        return f"{self.message}{between}{self.remedy}".strip()


def file_error(error: OSError) -> UserError:
    """A UserError with a remedy, for a file that cannot be read, written or run. Raises the error itself if it has no
    file."""
    if error.filename is None:
        raise error
    remedies = {
        errno.EACCES: "Run this as the user who owns this checkout, or clone it again.",
        errno.EPERM: "Run this as the user who owns this checkout, or clone it again.",
        errno.EROFS: "Its disk is mounted read-only: use a checkout on a writable disk.",
        errno.ENOSPC: "Its disk is full: make room.",
    }
    why = (error.strerror or type(error).__name__).lower()
    return UserError(f"{error.filename}: {why}.", remedy=remedies.get(error.errno or 0, "Check this file."))


class ChildDied(UserError):
    """A program that should run has ended. The message has its last log lines."""


class NotReady(UserError):
    """A program did not become ready before its deadline."""


def exit_code(run: Callable[[], int], *, program: str = "refund-agent", interrupted: str = "") -> int:
    """Runs a command and returns its exit code: 1 for a UserError or an unusable file, printed as one line on stderr.

    That line starts with `program`. `interrupted` is printed after Ctrl-C (130); SIGTERM and SIGHUP give 143.
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
