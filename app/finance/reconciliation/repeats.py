"""Repetitions by the sidecar that the record has put down to another call, or to none. Pure.

The sidecar says how many calls it asked again, not which: our record puts that down to the likeliest calls that ran at
the time. The bill knows better. So a repetition may belong to any call that was under way, as long as there are no more
of them than were counted among the calls of that time. While the count was lost, each call may have been asked again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.finance.reconciliation.claims import SHORTEST_PAUSE, Claim
from app.finance.reconciliation.matching import Matching, Rank, Slot, slots_of

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
    """Rows of the bill that no slot has -> the claim that each repeats; no more of them than were counted."""
    found: dict[int, int] = {}
    units = _Units(matching, unallocated)
    for index, numbers in _fitting(matching, set(matching.free_rows)):
        for number in numbers:
            if units.take(number):
                found[index] = number
                break
    return found


class _Units:
    """What was counted and is still to be had: each unit lets one call have been asked again."""

    def __init__(self, matching: Matching, unallocated: Sequence[Unallocated]) -> None:
        self._claims = matching.claims
        self._unallocated = unallocated
        self._left = [each.requests for each in unallocated]
        self._lost_taken: set[int] = set()  # of lost counts, one for each call
        repeated = [slot for slot in slots_of(matching.claims) if slot.rank is Rank.REPEATED]
        self._spare = Counter(slot.claim for slot in repeated if slot not in matching.row_of)
        self._holders = {slot.claim for slot in repeated if slot in matching.row_of}

    def take(self, number: int) -> bool:
        """Finds a unit for a claim. One that was put down to another call of that time will do, also when that one was
        asked again as well and has to take a third one's in its turn."""
        seen, waiting = {number}, deque([number])
        while waiting:
            asking = waiting.popleft()
            if self._take_free(asking):
                self._holders.add(number)
                return True
            for other in self._holders - seen:
                if together(self._claims[asking], self._claims[other]):
                    seen.add(other)
                    waiting.append(other)
        return False

    def _take_free(self, number: int) -> bool:
        claim = self._claims[number]
        for other in self._spare:
            if self._spare[other] and together(claim, self._claims[other]):
                self._spare[other] -= 1
                return True
        for source, left in enumerate(self._left):
            if not in_flight(claim, self._unallocated[source]) or left == 0:
                continue
            if left is not None:
                self._left[source] = left - 1
                return True
            if number not in self._lost_taken:
                self._lost_taken.add(number)
                return True
        return False


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


def together(left: Claim, right: Claim) -> bool:
    """Whether one reading of the count may hold both calls."""
    near = left.since - READING <= right.until and right.since - READING <= left.until
    return near and left.call.component == right.call.component


def in_flight(claim: Claim, unallocated: Unallocated) -> bool:
    """Whether the call was under way in that time."""
    if claim.call.component != unallocated.component:
        return False
    return claim.since <= unallocated.until and claim.until >= unallocated.since
