"""One kind of task: worked clean in both arms, then under each trace in both. Each run has a sandbox of its own.

Tasks that no kill waits for are worked first. The others go in small groups: each is brought to its point and held
there, then one SIGKILL takes their worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.crash_cost.arms import AT_ONCE, Durable, Restarting, Runner
from lab.crash_cost.jobs import Job
from lab.crash_cost.judging import Clean, Seen
from lab.crash_cost.outside import Outside
from lab.crash_cost.spend import Row, digests
from lab.crash_cost.trace import MODEL, Arm, Point, Request, Timeline
from runtime.errors import UserError
from runtime.stack import Stack

# Asked with nothing in it by which a request could be told to be a task's; it goes side by side with another.
_UNTOLD = "policies"

Say = Callable[[str], None]


class Scene:
    """A running stack, with both arms on it."""

    def __init__(self, stack: Stack, folder: Path, say: Say) -> None:
        self._outside = Outside(stack)
        self._restarting = Restarting(stack, folder)
        self._durable = Durable(stack)
        self._runners: dict[Arm, Runner] = {Arm.RESTART: self._restarting, Arm.RESUME: self._durable}
        self._say = say

    def close(self) -> None:
        """Ends what it has started on the stack."""
        self._restarting.stop()
        self._durable.close()

    def clean(self, jobs: Sequence[Job], label: str) -> Clean:
        """The plain runner, one job after another, so that each row of the bill is a known job's; then the other arm.
        Raises UserError when the two do not ask and book the same."""
        self._outside.fresh()
        self._restarting.begin(jobs, at_once=1)
        self._restarting.finish()
        rows = self._outside.bill()
        found = Clean(_timelines(jobs, self._restarting.requests(), rows), tuple(rows), self._outside.books())
        self._say(f"{label}: {len(jobs)} tasks clean, {len(rows)} model calls")
        durable = self.under(Arm.RESUME, jobs, (), found, f"{label}-clean")
        if (digests(durable.rows), durable.books) != (digests(rows), found.books):
            raise UserError(f"{label}: the two arms do not ask and book the same; they cannot be compared.")
        return found

    def under(self, arm: Arm, jobs: Sequence[Job], points: Sequence[Point], clean: Clean, label: str) -> Seen:
        """All jobs, with these kills."""
        begun, runner = time.monotonic(), self._runners[arm]
        self._outside.fresh()
        named = {job.name: job.in_run(f"{arm}-{label}") for job in jobs}
        struck = {point.job: point for point in points}
        if untouched := [job for name, job in named.items() if name not in struck]:
            runner.begin(untouched)
            runner.finish()
        for group in _groups(points):
            self._killed(runner, [named[point.job] for point in group], group, clean)
        seen = Seen(arm, tuple(self._outside.bill()), self._outside.books(), time.monotonic() - begun)
        self._say(f"{arm.words}, {label}: {len(points)} of {len(jobs)} tasks killed, {seen.seconds:.0f} s")
        return seen

    def _killed(self, runner: Runner, jobs: Sequence[Job], points: Sequence[Point], clean: Clean) -> None:
        for job, point in zip(jobs, points, strict=True):
            self._outside.hold(job, point, clean.timelines[job.name])
        runner.begin(jobs)
        self._outside.wait_until_all_are_held(f"{', '.join(job.name for job in jobs)} at the points of their kill")
        runner.kill()
        self._outside.release()
        runner.go_on()
        runner.finish()


def _groups(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    for first in range(0, len(points), AT_ONCE):
        yield points[first : first + AT_ONCE]


def _timelines(jobs: Sequence[Job], asked: Sequence[tuple[str, str]], rows: Sequence[Row]) -> dict[str, Timeline]:
    """Each job's requests in order; its model requests with their rows of the bill, which are in the same order."""
    billed = iter([row for row in rows if row["billed"]])
    found: dict[str, list[Request]] = {job.task_id: [] for job in jobs}
    for task_id, target in asked:
        number = 1 + sum(request.target == target for request in found[task_id])
        digest = str(next(billed)["request_digest"]) if target == MODEL else ""
        if target != _UNTOLD:
            found[task_id].append(Request(target, number, digest))
    return {job.name: tuple(found[job.task_id]) for job in jobs}
