"""Repetitions by the sidecar that the record has put down to another call, or to none. Pure.

The sidecar says how many calls it asked again, not which: our record puts that down to the likeliest calls that ran at
the time. The bill knows better. So a repetition may belong to any call that was under way, as long as there are no more
of them than were counted among the calls of that time. While the count was lost, each call may have been asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.cost.claims import SHORTEST_PAUSE, Claim
from app.cost.matching import Matching, Rank, Slot, slots_of

# The count is read at intervals: calls this far apart may share one reading.
READING = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Unallocated:
    """Retries of a component's sidecar in a time that are put down to no call: so many `requests`; None when the
    count of that time was lost. UTC."""

    component: str
    since: datetime
    until: datetime
    requests: int | None = None


def other_repeats(matching: Matching, unallocated: Sequence[Unallocated]) -> dict[int, int]:
    """Rows of the bill that no slot has -> the claim that each repeats. Fills slots of other claims, as many."""
    free = set(matching.free_rows)
    fitting = dict(_fitting(matching, free))
    spare = [slot for slot in slots_of(matching.claims) if slot.rank is Rank.REPEATED and slot not in matching.row_of]
    found: dict[int, int] = {}
    for index in matching.free_rows:
        for number in fitting.get(index, ()):
            slot = next((each for each in spare if _together(matching, number, each)), None)
            if slot is not None:
                spare.remove(slot)
                found[index] = number
                break
    still = {index: claims for index, claims in fitting.items() if index not in found}
    return found | _unallocated(matching, still, unallocated)


def _unallocated(
    matching: Matching, fitting: dict[int, list[int]], unallocated: Sequence[Unallocated]
) -> dict[int, int]:
    found: dict[int, int] = {}
    left = {number: each.requests for number, each in enumerate(unallocated)}
    taken: set[int] = set()  # of lost counts, one for each call
    for index, numbers in fitting.items():
        for claim, source in ((claim, source) for claim in numbers for source in left):
            if not in_flight(matching.claims[claim], unallocated[source]) or claim in taken:
                continue
            requests = left[source]
            if requests is None:
                taken.add(claim)
            elif requests > 0:
                left[source] = requests - 1
            else:
                continue
            found[index] = claim
            break
    return found


def _fitting(matching: Matching, free: set[int]) -> Iterator[tuple[int, list[int]]]:
    """Free rows with the claims that they may repeat, those of the nearest end first."""
    if not free:
        return
    found: dict[int, list[int]] = {}
    for number in sorted(range(len(matching.claims)), key=lambda each: matching.claims[each].until):
        for index in matching.fitting(Slot(number, 1, Rank.REPEATED), tight=False):
            if index in free and _after_a_pause(matching, number, index):
                found.setdefault(index, []).append(number)
    yield from sorted(found.items(), key=lambda item: matching.rows[item[0]].since)


def _after_a_pause(matching: Matching, number: int, index: int) -> bool:
    """Whether the call's own request and this one are as far apart as two requests of one call must be."""
    claim, at = matching.claims[number], matching.rows[index].since
    own = [matching.row_of.get(Slot(number, 0, rank)) for rank in (Rank.REPORTED, Rank.ESTIMATED, Rank.VAIN)]
    others = [matching.rows[row].since for row in own if row is not None]
    return claim.until - claim.since >= SHORTEST_PAUSE and all(abs(at - other) >= SHORTEST_PAUSE for other in others)


def _together(matching: Matching, number: int, slot: Slot) -> bool:
    """Whether one reading of the count may hold both calls."""
    mine, its = matching.claims[number], matching.claims[slot.claim]
    near = mine.since - READING <= its.until and its.since - READING <= mine.until
    return near and mine.call.component == its.call.component


def in_flight(claim: Claim, unallocated: Unallocated) -> bool:
    """Whether the call was under way in that time."""
    if claim.call.component != unallocated.component:
        return False
    return claim.since <= unallocated.until and claim.until >= unallocated.since
