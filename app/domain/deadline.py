"""By when whoever is asked for something has to have answered: set around a piece of work, read by each call out."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Iterator

_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is asked inside has to be answered within so many seconds, all together. Inner bounds only shorten it."""
    end = time.monotonic() + seconds
    before = _deadline.set(min(end, _deadline.get(end)))
    try:
        yield
    finally:
        _deadline.reset(before)


def left(at_most: float) -> float:
    """The seconds that are left for a call that may take `at_most`; zero when there are none."""
    return max(0.0, min(at_most, _deadline.get(float("inf")) - time.monotonic()))
