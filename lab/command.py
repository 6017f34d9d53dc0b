"""How a command of the lab runs: when it ends, everything it started is stopped, and errors are one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from runtime import errors, processes


def exit_code(run: Callable[[], None], name: str, interrupted: str = "Interrupted; nothing was written.") -> int:
    """Runs the command `name`; 1 when it went wrong. A goal that is missed is a finding, not a failure."""

    def run_to_the_end() -> int:
        run()
        return 0

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.adopt_orphans()
    return errors.exit_code(run_to_the_end, program=name, interrupted=interrupted)
