"""The sandbox as the experiment sees it: its bill, its books, and requests that it holds until their sender is dead.

A request that is held says how far its task has got: the model has worked (and billed) and its answer has not left, or
the request is still on its way. Nothing in the product knows of it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx

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
        self._http = httpx.Client(timeout=30, trust_env=False)

    def fresh(self) -> None:
        """A sandbox that remembers nothing: no bill, no books, no prompt in its cache."""
        if self._stack.alive("sandbox"):
            self._stack.stop("sandbox")
        shutil.rmtree(self._stack.state / "sandbox", ignore_errors=True)
        self._stack.start("sandbox")

    def bill(self) -> list[dict[str, Any]]:
        """Every request that reached the model."""
        rows = self._http.get(f"{self._stack.model_url}/bill").raise_for_status().json()["rows"]
        return list(rows)

    def books(self) -> Books:
        """What was booked, as facts with how often each stands there."""
        return {book: self._facts(book, names) for book, names in _FACTS.items()}

    def hold(self, job: Job, point: Point, timeline: Timeline) -> None:
        """Holds the request that the point names."""
        request = timeline[point.position]
        containing, skip = job.mark(request.target, request.number)
        order = {"target": request.target, "kind": "timeout", "count": 1, "containing": containing, "skip": skip}
        body = order | {"before_work": point.before_work}
        self._http.put(f"{self._stack.model_url}/faults", json=body).raise_for_status()

    def wait_until_all_are_held(self, what: str) -> None:
        """Returns when each hold has its request. Raises NotReady."""
        processes.wait_until(
            lambda: all(fault["fired"] for fault in self._faults()), what=what, deadline_seconds=_REACHED_SECONDS
        )

    def release(self) -> None:
        """Holds nothing from now on; what is held stays so until its sender goes."""
        self._http.delete(f"{self._stack.model_url}/faults").raise_for_status()

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def _faults(self) -> Sequence[dict[str, Any]]:
        faults: Sequence[dict[str, Any]] = (
            self._http.get(f"{self._stack.model_url}/faults").raise_for_status().json()["faults"]
        )
        return faults

    def _facts(self, book: str, names: Sequence[str]) -> Counter[tuple[Any, ...]]:
        rows = self._http.get(f"{self._stack.systems_url}/books/{book}").raise_for_status().json()["rows"]
        return Counter(tuple(row[name] for name in names) for row in rows)
