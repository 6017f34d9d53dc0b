"""A deadline for a piece of work: set around it, and read by each outgoing call in it."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Iterator

_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Sets the deadline of the calls inside to `seconds` from now. An inner deadline can only be earlier."""
    end = time.monotonic() + seconds
    before = _deadline.set(min(end, _deadline.get(end)))
    try:
        yield
    finally:
        _deadline.reset(before)


def remaining(at_most: float) -> float:
    """The seconds until the deadline, but no more than `at_most`; zero after the deadline."""
    return max(0.0, min(at_most, _deadline.get(float("inf")) - time.monotonic()))
