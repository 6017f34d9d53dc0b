"""Controls the sandbox: reads its bill and books, and makes it hold requests until their sender is killed.

A held request keeps its task at a defined point: either the request has arrived and no work was done, or the model has
worked and billed and its answer has not left. The product needs no change for this.
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
# The columns that must be the same in all runs, by book.
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

    def reset(self) -> None:
        """Restarts the sandbox with an empty bill, empty books and an empty prompt cache."""
        if self._stack.alive("sandbox"):
            self._stack.stop("sandbox")
        shutil.rmtree(self._stack.state / "sandbox", ignore_errors=True)
        self._stack.start("sandbox")

    def bill(self) -> tuple[dict[str, Any], ...]:
        """The bill: one row for each request that reached the model, in order."""
        return self._api.bill()

    def books(self) -> Books:
        """For each book, the number of entries with equal `_FACTS`."""
        return {
            book: Counter(tuple(row[name] for name in names) for row in self._api.book(book))
            for book, names in _FACTS.items()
        }

    def hold(self, job: Job, point: Point, timeline: Timeline) -> None:
        """Makes the sandbox hold the job's request at that point."""
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
        """Waits until all these requests are held. Raises NotReady with `what`."""
        processes.wait_until(
            lambda: all(fault["fired"] for fault in self._api.faults()), what=what, deadline_seconds=_REACHED_SECONDS
        )

    def release(self) -> None:
        """Stops holding further requests. A request that is held stays held until its sender disconnects."""
        self._api.clear_faults()
