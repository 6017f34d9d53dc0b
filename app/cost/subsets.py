"""Which of some things together come closest to what is wanted: all sums are looked at, up to a limit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

_MOST_SUMS = 20_000
Sum = TypeVar("Sum", bound=Hashable)
Item = TypeVar("Item")


def best_subset(
    items: Sequence[Item],
    nothing: Sum,
    add: Callable[[Sum, Item], Sum],
    badness: Callable[[Sum], int],
) -> tuple[tuple[Item, ...], bool]:
    """The subset whose sum is the least bad, of equals the first found; earlier items are preferred. The second value
    is False when there were too many sums to look at all of them."""
    found: dict[Sum, tuple[int, ...]] = {nothing: ()}
    whole = True
    for position, item in enumerate(items):
        for known, chosen in list(found.items()):
            if len(found) >= _MOST_SUMS:
                whole = False
                break
            found.setdefault(add(known, item), (*chosen, position))
    best = min(found, key=badness)
    return tuple(items[position] for position in found[best]), whole
