"""Runs a command of the lab: stops every process that it started, and reports an error in one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from runtime import errors, processes


def exit_code(run: Callable[[], None], name: str, interrupted: str = "Interrupted; nothing was written.") -> int:
    """Runs the command `name` and returns its exit code: 1 if it failed. A missed goal is a result, not a failure."""

    def run_and_return_zero() -> int:
        run()
        return 0

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.adopt_orphans()
    return errors.exit_code(run_and_return_zero, program=name, interrupted=interrupted)
