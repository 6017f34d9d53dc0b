"""How a benchmark's command ends: everything it started is stopped, and problems are sentences."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from rich.console import Console

from runtime import processes
from runtime.problems import Problem

_INTERRUPTED, _TERMINATED = 130, 143


def exit_code(run: Callable[[], None], console: Console, when_interrupted: str, name: str = "bench") -> int:
    """Runs it. 1 when it went wrong; a goal that is missed is a finding, not a failure. `name` begins the message."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    processes.adopt_orphans()
    try:
        run()
    except Problem as problem:
        console.print(f"{name}: {problem}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print(when_interrupted, highlight=False)
        return _INTERRUPTED
    return 0
