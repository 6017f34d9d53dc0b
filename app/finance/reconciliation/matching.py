"""Pairs the requests on a bill with the calls of the record, one to one: as many as can be, the surest first. Pure.

Each claim has slots that a request may fill: its own request's, and one for each repetition by the sidecar. Slots are
filled in the order of their rank; a slot that finds all its requests taken makes room along a chain of exchanges, in
which no filled slot is ever emptied. So of each rank as many slots are filled as the ranks before it allow.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from app.finance.reconciliation.bill import BillRow
from app.finance.reconciliation.claims import CLOCK_TOLERANCE, Claim

# What a call sent just before it was cut off may arrive so much later.
LATE_ARRIVAL = timedelta(milliseconds=500)


class Rank(IntEnum):
    """What a slot is for; the surest first."""

    REPORTED = 0  # paid, and the provider told for how many tokens
    ESTIMATED = 1  # paid, for as many tokens as we count
    VAIN = 2  # the call came to nothing; its request may have been billed
    REPEATED = 3  # by the sidecar


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one request of a claim. `number` is 0 for its own."""

    claim: int
    number: int
    rank: Rank


class Matching:
    """The pairs found so far; `row_of` and `slot_of` are each other's inverse."""

    def __init__(self, claims: Sequence[Claim], rows: Sequence[BillRow], precision: timedelta) -> None:
        self.claims = claims
        self.rows = rows
        self.row_of: dict[Slot, int] = {}
        self.slot_of: dict[int, Slot] = {}
        # Whether the clocks may be apart: a paid call was found only with their tolerance, or none at all.
        self.skewed = True
        self._precision = precision
        self._by_model: defaultdict[str, list[int]] = defaultdict(list)
        self._by_input: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for index in sorted(range(len(rows)), key=lambda each: rows[each].since):
            self._by_model[rows[index].model].append(index)
            self._by_input[rows[index].model, rows[index].count.input_tokens].append(index)

    @property
    def free_rows(self) -> list[int]:
        """The rows that no slot has, by time."""
        free = (index for index in range(len(self.rows)) if index not in self.slot_of)
        return sorted(free, key=lambda index: self.rows[index].since)

    def run(self) -> None:
        """Fills the slots, rank by rank."""
        slots: defaultdict[Rank, list[Slot]] = defaultdict(list)
        for slot in slots_of(self.claims):
            slots[slot.rank].append(slot)
        self._fill_in_order(slots[Rank.REPORTED], tight=True)
        exact = len(self.row_of)
        self._fill_in_order(slots[Rank.REPORTED], tight=False)
        self.skewed = len(self.row_of) > exact or not exact
        for rank in (Rank.ESTIMATED, Rank.VAIN, Rank.REPEATED):
            for tight in (True, False):
                self._fill_nearest(slots[rank], tight=tight)
                self._fill_in_order(slots[rank], tight=tight)
        self._fill_in_order(slots[Rank.VAIN], tight=False, late=True)

    def fitting(self, slot: Slot, *, tight: bool, late: bool = False) -> Iterator[int]:
        """The rows that may be the slot's, by time; `tight` without any tolerance. `late`: also those that arrived when
        the call had given up long ago, if they are of the very size of its question."""
        claim = self.claims[slot.claim]
        begin, end = self._window(claim, slot, tight)
        last = max(end, claim.last) if late and slot.rank is Rank.VAIN else end
        for listed in self._listed(claim, slot):
            first = bisect_left(listed, begin, key=lambda index: self.rows[index].since)
            behind = bisect_right(listed, last, key=lambda index: self.rows[index].since)
            for index in listed[first:behind]:
                row = self.rows[index]
                if _fits(claim, slot, row) and (row.since <= end or claim.is_of_its_size(row.count)):
                    yield index

    def _window(self, claim: Claim, slot: Slot, tight: bool) -> tuple[datetime, datetime]:
        begin, end = claim.since, claim.until
        if tight:
            pass
        elif slot.rank is Rank.REPORTED or (self.skewed and slot.rank is Rank.ESTIMATED):
            begin, end = begin - CLOCK_TOLERANCE, end + CLOCK_TOLERANCE
        elif self.skewed:
            begin, end = claim.early, claim.late
        elif slot.rank is Rank.VAIN:
            end = min(claim.late, end + LATE_ARRIVAL)
        return begin - self._precision, end

    def _listed(self, claim: Claim, slot: Slot) -> Iterable[list[int]]:
        model, usage = claim.call.model, claim.call.usage
        if not model:
            return self._by_model.values()
        if slot.rank is Rank.REPORTED:
            return (self._by_input.get((model, usage.input_tokens or 0), []),)
        if claim.expected is not None and claim.slack == 0:
            return (self._by_input.get((model, claim.expected), []),)
        return (self._by_model.get(model, []),)

    def _fill_in_order(self, slots: Iterable[Slot], *, tight: bool, late: bool = False) -> None:
        """By the earliest end, each with the earliest request that is left: among equals, nothing fills more slots."""
        hopeless: set[int] = set()
        for slot in sorted(slots, key=lambda each: (self.claims[each.claim].until, each.claim, each.number)):
            if len(self.slot_of) == len(self.rows):
                return
            if slot not in self.row_of:
                self._make_room(slot, tight, late, hopeless)

    def _fill_nearest(self, slots: Iterable[Slot], *, tight: bool) -> None:
        """Pairs of slots and free requests, those with the least difference in tokens first."""
        pairs: list[tuple[int, int, int, int, Slot]] = []
        for slot in slots:
            if slot not in self.row_of:
                claim = self.claims[slot.claim]
                for index in self.fitting(slot, tight=tight):
                    if index not in self.slot_of:
                        pairs.append((_distance(claim, self.rows[index]), index, slot.claim, slot.number, slot))
        for _, index, _, _, slot in sorted(pairs, key=lambda pair: pair[:4]):
            if slot not in self.row_of and index not in self.slot_of:
                self._take(slot, index)

    def _make_room(self, slot: Slot, tight: bool, late: bool, hopeless: set[int]) -> None:
        """Gives the slot a request, if need be by moving others to other requests of theirs. Requests from which no
        chain leads to a free one become `hopeless`, and stay so, whatever is exchanged elsewhere."""
        came_from: dict[int, Slot] = {}
        waiting = deque([slot])
        while waiting:
            asking = waiting.popleft()
            for index in self.fitting(asking, tight=tight, late=late):
                if index in came_from or index in hopeless:
                    continue
                came_from[index] = asking
                if index not in self.slot_of:
                    self._exchange(index, came_from, slot)
                    return
                waiting.append(self.slot_of[index])
        hopeless.update(came_from)

    def _exchange(self, index: int, came_from: dict[int, Slot], first: Slot) -> None:
        while True:
            slot = came_from[index]
            left = self.row_of.get(slot)
            self._take(slot, index)
            if slot == first or left is None:
                return
            index = left

    def _take(self, slot: Slot, index: int) -> None:
        self.row_of[slot] = index
        self.slot_of[index] = slot


def slots_of(claims: Sequence[Claim]) -> Iterator[Slot]:
    """Every slot of the claims."""
    for index, claim in enumerate(claims):
        for number in range(claim.requests):
            yield Slot(index, number, _rank(claim, number))


def _rank(claim: Claim, number: int) -> Rank:
    if number > 0:
        return Rank.REPEATED
    if claim.owes:
        return Rank.REPORTED if claim.exact else Rank.ESTIMATED
    return Rank.VAIN


def _fits(claim: Claim, slot: Slot, row: BillRow) -> bool:
    if not claim.of_model(row.model):
        return False
    return claim.is_just(row.count) if slot.rank is Rank.REPORTED else claim.may_be(row.count)


def _distance(claim: Claim, row: BillRow) -> int:
    usage = claim.call.usage
    entered = abs((claim.expected or 0) - row.count.input_tokens)
    return entered + abs((usage.output_tokens or 0) - row.count.output_tokens)
