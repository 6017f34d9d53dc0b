"""Runs one kind of task in both arms: without kills, then with the kills of a trace. Each run has a fresh sandbox.

Tasks that are not killed run first. The others run in small groups: each task is held at its point, then one SIGKILL
ends their worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.crash_cost.arms import AT_ONCE, Durable, Restarting, Runner
from lab.crash_cost.jobs import Job
from lab.crash_cost.judging import CleanRun, KilledRun
from lab.crash_cost.outside import Outside
from lab.crash_cost.spend import Row, digests
from lab.crash_cost.trace import MODEL, Arm, Point, Request, Timeline
from runtime.errors import UserError
from runtime.stack import Stack

# A request to this system contains nothing that identifies its task. It runs in parallel with another request.
_UNIDENTIFIED = "policies"

Say = Callable[[str], None]


class Scene:
    """A running stack with both arms."""

    def __init__(self, stack: Stack, folder: Path, say: Say) -> None:
        self._outside = Outside(stack)
        self._restarting = Restarting(stack, folder)
        self._durable = Durable(stack)
        self._runners: dict[Arm, Runner] = {Arm.RESTART: self._restarting, Arm.RESUME: self._durable}
        self._say = say

    def close(self) -> None:
        """Stops both arms."""
        self._restarting.stop()
        self._durable.close()

    def run_clean(self, jobs: Sequence[Job], label: str) -> CleanRun:
        """Runs the jobs without kills in both arms.

        The plain runner works one job after another, so that the job of each row of the bill is known. Raises UserError
        if the arms differ in their requests or books.
        """
        self._outside.reset()
        self._restarting.start(jobs, at_once=1)
        self._restarting.finish()
        rows = self._outside.bill()
        clean = CleanRun(_timelines(jobs, self._restarting.requests(), rows), tuple(rows), self._outside.books())
        self._say(f"{label}: {len(jobs)} tasks clean, {len(rows)} model calls")
        durable = self.run_with_kills(Arm.RESUME, jobs, (), clean, f"{label}-clean")
        if (digests(durable.rows), durable.books) != (digests(rows), clean.books):
            raise UserError(
                f"{label}: requests or books of the two arms differ without kills, so that they cannot be compared."
            )
        return clean

    def run_with_kills(
        self, arm: Arm, jobs: Sequence[Job], points: Sequence[Point], clean: CleanRun, label: str
    ) -> KilledRun:
        """Runs all jobs in one arm, with a kill at each point."""
        started, runner = time.monotonic(), self._runners[arm]
        self._outside.reset()
        named = {job.name: job.in_run(f"{arm}-{label}") for job in jobs}
        by_job = {point.job: point for point in points}
        if untouched := [job for name, job in named.items() if name not in by_job]:
            runner.start(untouched)
            runner.finish()
        for group in _groups(points):
            self._run_and_kill(runner, [named[point.job] for point in group], group, clean)
        run = KilledRun(arm, tuple(self._outside.bill()), self._outside.books(), time.monotonic() - started)
        self._say(f"{arm.words}, {label}: {len(points)} of {len(jobs)} tasks killed, {run.seconds:.0f} s")
        return run

    def _run_and_kill(self, runner: Runner, jobs: Sequence[Job], points: Sequence[Point], clean: CleanRun) -> None:
        for job, point in zip(jobs, points, strict=True):
            self._outside.hold(job, point, clean.timelines[job.name])
        runner.start(jobs)
        self._outside.wait_until_all_are_held(f"{', '.join(job.name for job in jobs)} at the points of their kill")
        runner.kill()
        self._outside.release()
        runner.restart()
        runner.finish()


def _groups(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    for first in range(0, len(points), AT_ONCE):
        yield points[first : first + AT_ONCE]


def _timelines(jobs: Sequence[Job], requests: Sequence[tuple[str, str]], rows: Sequence[Row]) -> dict[str, Timeline]:
    """By job, its requests in order. Model requests get their digests from the bill, which has the same order."""
    billed = iter([row for row in rows if row["billed"]])
    timelines: dict[str, list[Request]] = {job.task_id: [] for job in jobs}
    for task_id, target in requests:
        number = 1 + sum(request.target == target for request in timelines[task_id])
        digest = str(next(billed)["request_digest"]) if target == MODEL else ""
        if target != _UNIDENTIFIED:
            timelines[task_id].append(Request(target, number, digest))
    return {job.name: tuple(timelines[job.task_id]) for job in jobs}
