"""The arm that begins again at step one: a plain runner, and a supervisor that starts it again when it dies.

The supervisor knows which jobs are finished, and hands the others out again. Idempotency keys keep a job that is worked
twice from refunding twice.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.crash_cost.arms import AT_ONCE
from lab.crash_cost.jobs import Job
from lab.crash_cost.plain_runner import DONE, JOBS, REQUESTS
from lab.crash_cost.theory import Arm
from runtime import paths, processes
from runtime.problems import Problem
from runtime.processes import Child
from runtime.stack import Stack
from runtime.stack_commands import worker_environment

_FINISH_SECONDS = 300.0
_MODULE = "lab.crash_cost.plain_runner"


class Restarting:
    """The supervisor."""

    arm = Arm.RESTART

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._jobs: tuple[Job, ...] = ()
        self._at_once = AT_ONCE
        self._child: Child | None = None

    def begin(self, jobs: Sequence[Job], at_once: int = AT_ONCE) -> None:
        """Starts a runner with these jobs."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._jobs, self._at_once = tuple(jobs), at_once
        self._start(self._jobs)

    def kill(self) -> None:
        """SIGKILLs the runner."""
        processes.kill(self._running())

    def go_on(self) -> None:
        """Starts it again, with what is not finished."""
        self._start([job for job in self._jobs if job.name not in self._done()])

    def finish(self) -> None:
        """Waits for the runner's end. Raises Problem with the end of its log when it ends badly."""
        child = self._running()
        processes.wait_until(
            lambda: not child.alive(), what="the end of the plain runner", deadline_seconds=_FINISH_SECONDS
        )
        left = {job.name for job in self._jobs} - self._done()
        if left:
            raise Problem(f"The plain runner has not finished {', '.join(sorted(left))}:\n{child.last_lines()}")

    def stop(self) -> None:
        """Leaves nothing running."""
        if self._child is not None:
            processes.stop(self._child)

    def requests(self) -> list[tuple[str, str]]:
        """Which task has asked whom, in order, since the jobs were begun."""
        return [(task_id, target) for task_id, target in map(str.split, self._lines(REQUESTS))]

    def _start(self, jobs: Sequence[Job]) -> None:
        (self._folder / JOBS).write_text("".join(f"{job.model_dump_json()}\n" for job in jobs))
        command = [sys.executable, "-m", _MODULE, str(self._folder), str(self._at_once)]
        environment = {**worker_environment(self._stack.ports, self._stack.state), **self._stack.worker_env}
        log = self._stack.state / "logs" / "plain-runner.log"
        self._child = processes.start("plain runner", command, log=log, environment=environment, folder=paths.ROOT)

    def _running(self) -> Child:
        if self._child is None:
            raise Problem("The plain runner was not started.", remedy="Call begin first.")
        return self._child

    def _done(self) -> set[str]:
        return set(self._lines(DONE))

    def _lines(self, name: str) -> list[str]:
        file = self._folder / name
        return file.read_text().splitlines() if file.exists() else []
