"""Runs a program that ends with its starter: `python -IS die_with_parent.py STARTER_PID PROGRAM ARG...`.

The kernel sends the program SIGTERM when the thread that started it ends (PR_SET_PDEATHSIG), even by SIGKILL. This
works on Linux only; elsewhere the program runs without it.
"""

from __future__ import annotations

import os
import sys

PR_SET_PDEATHSIG = 1
SIGTERM = 15
CANNOT_START = 127


def main(arguments: list[str]) -> int:
    """Replaces this process by the program; returns only if that fails."""
    starter, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0)
        if os.getppid() != starter:
            return CANNOT_START
    try:
        os.execvp(program[0], program)  # noqa: S606 - no shell is needed
    except OSError as error:
        sys.stderr.write(f"{program[0]} cannot be started: {error.strerror}\n")
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
