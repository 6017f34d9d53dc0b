"""What runs have left behind: values only. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lab.crash_cost.spend import Row, digests
from lab.crash_cost.theory import Arm, Digests
from lab.crash_cost.trace import Timeline
from runtime.problems import Problem

Books = dict[str, Counter[tuple[Any, ...]]]


@dataclass(frozen=True)
class Clean:
    """A run without a kill: what every job asks, in order, and what stands on the bill and in the books for it."""

    timelines: dict[str, Timeline]
    rows: tuple[Row, ...]
    books: Books


@dataclass(frozen=True)
class Seen:
    """A run under a trace, in one arm."""

    arm: Arm
    rows: tuple[Row, ...]
    books: Books
    seconds: float


def otherwise(seen: Seen, clean: Clean, book: str) -> int:
    """Entries of a book that the clean run does not have, and entries of its that are missing."""
    mine, theirs = seen.books[book], clean.books[book]
    return (mine - theirs).total() + (theirs - mine).total()


def extra(seen: Seen, clean: Clean) -> Digests:
    """The requests that stand on the bill more often than in the clean run. Raises Problem when one is missing."""
    missing = digests(clean.rows) - digests(seen.rows)
    if missing:
        raise Problem(f"{seen.arm.words}: {missing.total()} model calls of the clean run are not on the bill.")
    return digests(seen.rows) - digests(clean.rows)
