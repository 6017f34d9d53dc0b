"""Which of some things together come closest to what is wanted: all sums are looked at, up to a limit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

_MOST_SUMS = 20_000
# Machine words that the search for a subset may keep: 64 MB.
_MOST_WORDS = 8_000_000
Sum = TypeVar("Sum", bound=Hashable)
Item = TypeVar("Item")


def nearest_subset(sizes: Sequence[int], number: int, wanted: int) -> tuple[int, ...] | None:
    """The positions of `number` sizes whose sum is nearest to `wanted`, earlier ones preferred; None when there are too
    many to look at all of them. There must be so many sizes."""
    limit = sum(sorted(sizes, reverse=True)[:number]) + 1
    if len(sizes) * (number + 1) * (limit // 64 + 1) > _MOST_WORDS:
        return None
    # Bit s of sums[c] says whether c of the sizes so far have the sum s.
    sums = [1] + [0] * number
    prefixes = [sums]
    for size in sizes:
        sums = [sums[0], *(sums[count] | sums[count - 1] << size for count in range(1, number + 1))]
        prefixes.append(sums)
    return _positions(sizes, prefixes, number, _nearest(sums[number], max(0, wanted)))


def _nearest(sums: int, wanted: int) -> int:
    """The bit that is set and nearest to `wanted`."""
    below = (sums & ((1 << wanted + 1) - 1)).bit_length() - 1
    higher = sums >> wanted
    above = wanted + (higher & -higher).bit_length() - 1 if higher else below
    return above if below < 0 or above - wanted < wanted - below else below


def _positions(sizes: Sequence[int], prefixes: Sequence[Sequence[int]], number: int, left: int) -> tuple[int, ...]:
    found: list[int] = []
    for position in range(len(sizes) - 1, -1, -1):
        if not prefixes[position][number] >> left & 1:  # the earlier ones alone do not have that sum
            found.append(position)
            number, left = number - 1, left - sizes[position]
    return tuple(reversed(found))


def good_subsets(
    items: Sequence[Item],
    nothing: Sum,
    add: Callable[[Sum, Item], Sum],
    badness: Callable[[Sum], int],
    most: int,
) -> list[tuple[Sum, tuple[Item, ...]]]:
    """The sums that are the least bad, each with a subset that has it; the smallest subsets first, `most` at most."""
    found = _sums(items, nothing, add)
    ranked = sorted(
        (badness(known), len(chosen), number, known) for number, (known, chosen) in enumerate(found.items())
    )
    return [(known, tuple(items[position] for position in found[known])) for _, _, _, known in ranked[:most]]


def _sums(items: Sequence[Item], nothing: Sum, add: Callable[[Sum, Item], Sum]) -> dict[Sum, tuple[int, ...]]:
    """Every sum, with the positions of items that have it."""
    found: dict[Sum, tuple[int, ...]] = {nothing: ()}
    for position, item in enumerate(items):
        for known, chosen in list(found.items()):
            if len(found) >= _MOST_SUMS:
                return found
            found.setdefault(add(known, item), (*chosen, position))
    return found
