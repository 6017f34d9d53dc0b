"""What an arm can do, whichever it is: begin tasks, be killed, go on, finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lab.crash_cost.jobs import Job
from lab.crash_cost.theory import Arm

# Side by side: few enough that a kill while as many models work does not open the sidecar's circuit breaker.
AT_ONCE = 5


class Runner(Protocol):
    """One arm. Begins no jobs before those that it had begun are finished."""

    arm: Arm

    def begin(self, jobs: Sequence[Job]) -> None:
        """Starts these jobs and returns."""
        ...

    def kill(self) -> None:
        """SIGKILLs whoever works them."""
        ...

    def go_on(self) -> None:
        """Starts whoever works them again."""
        ...

    def finish(self) -> None:
        """Returns when all jobs that were begun are finished. Raises Problem when they do not finish."""
        ...
