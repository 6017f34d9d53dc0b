"""The sandbox as the experiment sees it: its bill, its books, and requests that it holds until their sender is dead.

A request that is held says how far its task has got: the model has worked (and billed) and its answer has not left, or
the request is still on its way. Nothing in the product knows of it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

from lab.clients import SandboxApi
from lab.crash_cost.jobs import Job
from lab.crash_cost.judging import Books
from lab.crash_cost.trace import Point, Timeline
from runtime import processes
from runtime.stack import Stack

_REACHED_SECONDS = 60.0
# What must be the same in the books of every run, by book.
_FACTS = {
    "refunds": ("tenant", "customer_id", "order_id", "amount", "currency"),
    "notifications": ("tenant", "customer_id", "text"),
    "cases": ("tenant", "outcome"),
}


class Outside:
    """The sandbox of a running stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._api = SandboxApi.of(stack)

    def fresh(self) -> None:
        """A sandbox that remembers nothing: no bill, no books, no prompt in its cache."""
        if self._stack.alive("sandbox"):
            self._stack.stop("sandbox")
        shutil.rmtree(self._stack.state / "sandbox", ignore_errors=True)
        self._stack.start("sandbox")

    def bill(self) -> tuple[dict[str, Any], ...]:
        """The bill: one row for each request that reached the model, in order."""
        return self._api.bill()

    def books(self) -> Books:
        """The books as facts, each with how often it is there."""
        return {
            book: Counter(tuple(row[name] for name in names) for row in self._api.book(book))
            for book, names in _FACTS.items()
        }

    def hold(self, job: Job, point: Point, timeline: Timeline) -> None:
        """Holds the request that the point names."""
        request = timeline[point.position]
        containing, skip = job.mark(request.target, request.number)
        self._api.put_fault(
            target=request.target,
            kind="timeout",
            count=1,
            containing=containing,
            skip=skip,
            before_work=point.before_work,
        )

    def wait_until_all_are_held(self, what: str) -> None:
        """Returns when every hold has its request. Raises NotReady."""
        processes.wait_until(
            lambda: all(fault["fired"] for fault in self._api.faults()), what=what, deadline_seconds=_REACHED_SECONDS
        )

    def release(self) -> None:
        """Stops holding requests; a request that is held already stays held until its sender goes."""
        self._api.clear_faults()
