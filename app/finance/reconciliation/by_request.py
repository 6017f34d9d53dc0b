"""Compares our record with a bill that names each request: every request and every call is accounted for. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import repeat

from app.domain.models import CallState
from app.finance.reconciliation.bill import CLOCK_TOLERANCE, NONE, SHORTEST_PAUSE, Bill, BillRow, Claim, Count, slack
from app.finance.reconciliation.reconciliation_types import BillFinding, Cell, Certainty, DifferenceCause, cell

# Pairs the requests on a bill with the calls of the record, one to one: as many as can be, the surest first.
#
# Each claim has a slot for its own request; each repetition that the sidecar counted is a slot for one request of any
# call of its time. Slots are filled in the order of their rank; a slot that finds all its requests taken makes room
# along a chain of exchanges, in which no filled slot is ever emptied. So of each rank as many slots are filled as the
# ranks before it allow.

# What a call sent just before it was cut off may arrive so much later.
LATE_ARRIVAL = timedelta(milliseconds=500)


class Rank(IntEnum):
    """What a slot is for; the surest first."""

    REPORTED = 0  # paid, and the provider told for how many tokens
    ESTIMATED = 1  # paid, for as many tokens as we count
    VAIN = 2  # the call came to nothing; its request may have been billed
    REPEATED = 3  # by the sidecar


@dataclass(frozen=True, slots=True)
class UnattributedRetries:
    """How many `requests` a component's sidecar repeated in a time, for calls that it does not name; None when the
    counter was lost in that time. UTC."""

    component: str
    since: datetime
    until: datetime
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one request: the own one of the claim with that number, or that repetition by the sidecar."""

    number: int
    rank: Rank


class Matching:
    """The pairs found so far; `row_of` and `slot_of` are each other's inverse. `repeats`: for each repetition by the
    sidecar, the claims that it may be of."""

    def __init__(
        self,
        claims: Sequence[Claim],
        rows: Sequence[BillRow],
        precision: timedelta,
        unattributed: Sequence[UnattributedRetries] = (),
    ) -> None:
        self.claims = claims
        self.rows = rows
        self.repeats = tuple(_repeats(claims, unattributed))
        self.row_of: dict[Slot, int] = {}
        self.slot_of: dict[int, Slot] = {}
        # Whether the clocks may be apart: a paid call was found only with their tolerance, or none at all.
        self.skewed = True
        self._precision = precision
        self._by_model: defaultdict[str, list[int]] = defaultdict(list)
        self._by_input: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for index in sorted(range(len(rows)), key=lambda row: rows[row].since):
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
        for slot in self.slots():
            slots[slot.rank].append(slot)
        self._fill_in_order(slots[Rank.REPORTED], tight=True)
        exact = len(self.row_of)
        self._fill_in_order(slots[Rank.REPORTED], tight=False)
        self.skewed = len(self.row_of) > exact or not exact
        for rank in (Rank.ESTIMATED, Rank.VAIN, Rank.REPEATED):
            for tight in (True, False):
                if rank is not Rank.REPEATED:
                    self._fill_nearest(slots[rank], tight=tight)
                self._fill_in_order(slots[rank], tight=tight)
        self._fill_in_order(slots[Rank.VAIN], tight=False, late=True)
        for slot in slots[Rank.REPEATED]:
            # An exchange may have brought the call's own request too near.
            if slot in self.row_of and self.row_of[slot] not in self.fitting(slot, tight=False):
                del self.slot_of[self.row_of.pop(slot)]

    def slots(self) -> Iterator[Slot]:
        """Every slot."""
        for number, claim in enumerate(self.claims):
            if claim.own:
                yield Slot(number, _rank(claim))
        for number in range(len(self.repeats)):
            yield Slot(number, Rank.REPEATED)

    def fitting(self, slot: Slot, *, tight: bool, late: bool = False) -> Iterable[int]:
        """The rows that may be the slot's, by time; `tight` without any tolerance. `late`: also those that arrived when
        the call had given up long ago, if they are of the very size of its question."""
        if slot.rank is not Rank.REPEATED:
            return self._fitting(slot, tight, late)
        indexes = {index for number in self.repeats[slot.number] for index in self._repeated(number, tight)}
        return sorted(indexes, key=lambda index: self.rows[index].since)

    def claim_of(self, slot: Slot) -> Claim:
        """Whose request a filled slot holds; of a repetition, the likeliest: the one of the nearest end."""
        if slot.rank is not Rank.REPEATED:
            return self.claims[slot.number]
        index = self.row_of[slot]
        fits = (
            self.claims[claim] for claim in self.repeats[slot.number] if index in self._repeated(claim, tight=False)
        )
        return min(fits, key=lambda claim: claim.until)

    def _repeated(self, number: int, tight: bool) -> list[int]:
        """The rows that may be a repetition of a claim: a pause apart from its own request."""
        own = self.row_of.get(Slot(number, _rank(self.claims[number])))
        fits = self._fitting(Slot(number, Rank.REPEATED), tight)
        if own is None:
            return list(fits)
        at = self.rows[own].since
        return [index for index in fits if abs(self.rows[index].since - at) >= SHORTEST_PAUSE]

    def _fitting(self, slot: Slot, tight: bool, late: bool = False) -> Iterator[int]:
        claim = self.claims[slot.number]
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
        for slot in sorted(slots, key=lambda place: (self._end(place), place.number)):
            if len(self.slot_of) == len(self.rows):
                return
            if slot not in self.row_of:
                self._make_room(slot, tight, late, hopeless)

    def _end(self, slot: Slot) -> datetime:
        numbers = self.repeats[slot.number] if slot.rank is Rank.REPEATED else (slot.number,)
        return max(self.claims[number].until for number in numbers)

    def _fill_nearest(self, slots: Iterable[Slot], *, tight: bool) -> None:
        """Pairs of slots and free requests, those with the least difference in tokens first."""
        pairs: list[tuple[int, int, int, Slot]] = []
        for slot in slots:
            if slot not in self.row_of:
                claim = self.claims[slot.number]
                for index in self.fitting(slot, tight=tight):
                    if index not in self.slot_of:
                        pairs.append((_distance(claim, self.rows[index]), index, slot.number, slot))
        for _, index, _, slot in sorted(pairs, key=lambda pair: pair[:3]):
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


def _rank(claim: Claim) -> Rank:
    """Of the claim's own request."""
    if claim.owes:
        return Rank.REPORTED if claim.exact else Rank.ESTIMATED
    return Rank.VAIN


def _repeats(claims: Sequence[Claim], unattributed: Sequence[UnattributedRetries]) -> Iterator[tuple[int, ...]]:
    """What was repeated: for each counted one, the claims under way in its time; while the counter was lost, each
    claim may have been repeated once."""
    lost: set[int] = set()
    for retries in unattributed:
        under_way = (number for number, claim in enumerate(claims) if in_flight(claim, retries))
        # Two requests of one call are a pause apart.
        numbers = tuple(n for n in under_way if claims[n].until - claims[n].since >= SHORTEST_PAUSE)
        if retries.requests is None:
            lost.update(numbers)
        elif numbers:
            yield from repeat(numbers, retries.requests)
    yield from ((number,) for number in sorted(lost))


def in_flight(claim: Claim, unattributed: UnattributedRetries) -> bool:
    """Whether the call was under way in that time."""
    if claim.call.component != unattributed.component:
        return False
    return claim.since <= unattributed.until and claim.until >= unattributed.since


def _fits(claim: Claim, slot: Slot, row: BillRow) -> bool:
    if not claim.of_model(row.model):
        return False
    return claim.is_just(row.count) if slot.rank is Rank.REPORTED else claim.may_be(row.count)


def _distance(claim: Claim, row: BillRow) -> int:
    usage = claim.call.usage
    entered = abs((claim.expected or 0) - row.count.input_tokens)
    return entered + abs((usage.output_tokens or 0) - row.count.output_tokens)


_HOUR = timedelta(hours=1)
_OWN = {CallState.FAILED: DifferenceCause.FAILED_CALL, CallState.INTERRUPTED: DifferenceCause.INTERRUPTED_CALL}
NOTES = {
    DifferenceCause.FAILED_CALL: "its request reached the provider and was billed",
    DifferenceCause.INTERRUPTED_CALL: "its request reached the provider and was billed",
    DifferenceCause.RUNNING_CALL: "its request is billed; our record has no answer yet",
    DifferenceCause.SIDECAR_RETRY: "the sidecar asked again by itself; call and time fit, it does not name the call",
    DifferenceCause.NEVER_BILLED: "it did not reach the provider, or was not billed; our record has an estimate",
    DifferenceCause.NOT_ON_BILL: "our record says that it was paid, and the bill has no such request",
    DifferenceCause.DIFFERS: "the provider reported other tokens to us than it billed",
    DifferenceCause.UNKNOWN: "billed, and no call of our record accounts for it",
    DifferenceCause.ESTIMATE: "the provider reports no usage; our record holds what we counted",
    DifferenceCause.UNKNOWN_PROVIDER: "the component changed meanwhile; it may stand on another provider's bill",
    DifferenceCause.BUCKET_EDGE: "under way at the edge of two of the bill's sums; it stands in the other one",
    DifferenceCause.PERIOD_EDGE: "under way at the edge of the bill's period; it may stand on the bill before or after",
}


def compare_requests(
    claims: Sequence[Claim], bill: Bill, unattributed: Sequence[UnattributedRetries] = ()
) -> tuple[BillFinding, ...]:
    """Every request of the bill and every call, with what became of it; also those that agree."""
    matching = Matching(claims, bill.rows, precision(bill), unattributed)
    matching.run()
    differing = dict(_differing(matching))
    findings = [_paired(matching, slot, index) for slot, index in matching.row_of.items()]
    findings += [_other_tokens(matching, slot, index) for slot, index in differing.items()]
    accounted = set(differing.values())
    findings += [_unknown(bill, index) for index in matching.free_rows if index not in accounted]
    findings += _left(matching, bill, differing)
    return tuple(
        sorted(findings, key=lambda finding: (finding.at, finding.place, finding.call.call_id if finding.call else ""))
    )


def precision(bill: Bill) -> timedelta:
    """How long one instant of the bill is: a second when it keeps whole seconds, else nothing."""
    whole = bool(bill.rows) and all(row.since.microsecond == 0 for row in bill.rows)
    return timedelta(seconds=1) - timedelta(microseconds=1) if whole else timedelta(0)


def cells_of(findings: Iterable[BillFinding], unpriced: frozenset[str]) -> tuple[Cell, ...]:
    """The findings by model and hour."""
    groups: defaultdict[tuple[str, datetime], list[BillFinding]] = defaultdict(list)
    for finding in findings:
        hour = finding.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        groups[finding.model, hour].append(finding)
    return tuple(cell(model, hour, hour + _HOUR, groups[model, hour], unpriced) for model, hour in sorted(groups))


def _paired(matching: Matching, slot: Slot, index: int) -> BillFinding:
    claim, row = matching.claim_of(slot), matching.rows[index]
    if slot.rank is Rank.REPEATED:
        return _finding(DifferenceCause.SIDECAR_RETRY, claim, row, NONE, row.count, Certainty.BOUNDED)
    cause, record = _cause(claim, slot), claim.record
    if cause in (DifferenceCause.AGREES, DifferenceCause.ESTIMATE):
        record, billed = _alike(record, row.count)
        cause = DifferenceCause.AGREES if record == billed else cause
    else:
        billed = row.count
    if cause in _OWN.values() and row.since > claim.until + LATE_ARRIVAL:
        return replace(_finding(cause, claim, row, record, billed), note=_arrived_late(claim, row))
    return _finding(cause, claim, row, record, billed)


def _cause(claim: Claim, slot: Slot) -> DifferenceCause:
    match slot.rank:
        case Rank.REPORTED:
            return DifferenceCause.AGREES
        case Rank.ESTIMATED:
            return DifferenceCause.ESTIMATE
        case _:
            return DifferenceCause.AGREES if claim.homeless and claim.exact else own_cause(claim)


def own_cause(claim: Claim) -> DifferenceCause:
    """Why a request of a call that owes none stands on the bill."""
    if claim.homeless:
        return DifferenceCause.UNKNOWN_PROVIDER
    return _OWN.get(claim.call.state, DifferenceCause.RUNNING_CALL)


def _alike(record: Count, billed: Count) -> tuple[Count, Count]:
    """Both with cached tokens, or both without: what one of them does not know cannot differ."""
    if record.cached_tokens is None or billed.cached_tokens is None:
        return _without_cached(record), _without_cached(billed)
    return record, billed


def _without_cached(count: Count) -> Count:
    return Count(count.requests, count.input_tokens, None, count.output_tokens)


def _differing(matching: Matching) -> Iterator[tuple[Slot, int]]:
    """Calls that were paid, with the request that is theirs but for its tokens: the nearest first."""
    pairs, free = [], matching.free_rows
    for number, claim in enumerate(matching.claims):
        slot = Slot(number, Rank.REPORTED)
        if not claim.exact or slot in matching.row_of:
            continue
        entered = claim.call.usage.input_tokens or 0
        for index in free:
            row = matching.rows[index]
            near = claim.since - CLOCK_TOLERANCE <= row.since <= claim.until + CLOCK_TOLERANCE
            away = abs(row.count.input_tokens - entered)
            if near and claim.of_model(row.model) and away <= slack(entered, 0):
                pairs.append((away + abs(row.count.output_tokens - claim.record.output_tokens), index, slot))
    taken: set[Slot | int] = set()
    for _, index, slot in sorted(pairs, key=lambda pair: (pair[0], pair[1], pair[2].number)):
        if slot not in taken and index not in taken:
            taken |= {slot, index}
            yield slot, index


def _other_tokens(matching: Matching, slot: Slot, index: int) -> BillFinding:
    claim, row = matching.claims[slot.number], matching.rows[index]
    return _finding(DifferenceCause.DIFFERS, claim, row, *_alike(claim.record, row.count))


def _arrived_late(claim: Claim, row: BillRow) -> str:
    seconds = (row.since - claim.until).total_seconds()
    return f"its request reached the provider {seconds:.1f} s after the call had given up, and was billed"


def _finding(
    cause: DifferenceCause,
    claim: Claim,
    row: BillRow,
    record: Count,
    billed: Count,
    certainty: Certainty = Certainty.CERTAIN,
) -> BillFinding:
    note, basis = NOTES.get(cause, ""), claim.call.usage.basis
    return BillFinding(cause, certainty, row.model, row.since, claim.call, row.place, record, billed, note, basis)


def _unknown(bill: Bill, index: int) -> BillFinding:
    row = bill.rows[index]
    cause = DifferenceCause.UNKNOWN
    return BillFinding(cause, Certainty.CERTAIN, row.model, row.since, None, row.place, NONE, row.count, NOTES[cause])


def _left(matching: Matching, bill: Bill, differing: Iterable[Slot]) -> Iterator[BillFinding]:
    """The calls whose own request the bill does not hold."""
    paired = {slot.number for slot in (*matching.row_of, *differing) if slot.rank is not Rank.REPEATED}
    for number, claim in enumerate(matching.claims):
        if number in paired:
            continue
        if (claim.record == NONE and not claim.owes) or not under_way(claim, bill):
            continue
        cause = DifferenceCause.NOT_ON_BILL if claim.owes else of_none(claim)
        certainty = Certainty.CERTAIN
        if cause is DifferenceCause.NOT_ON_BILL and _crosses_an_edge(claim, bill):
            cause, certainty = DifferenceCause.PERIOD_EDGE, Certainty.BOUNDED
        call, at = claim.call, claim.since
        yield BillFinding(
            cause, certainty, call.model, at, call, "", claim.record, NONE, NOTES[cause], call.usage.basis
        )


def of_none(claim: Claim) -> DifferenceCause:
    """Why our record counts what the bill does not hold, of a call that owes nothing."""
    return DifferenceCause.UNKNOWN_PROVIDER if claim.homeless else DifferenceCause.NEVER_BILLED


def under_way(claim: Claim, bill: Bill) -> bool:
    """Whether some of the call's own time is in the bill's."""
    return (bill.since is None or claim.until >= bill.since) and (bill.until is None or claim.since < bill.until)


def _crosses_an_edge(claim: Claim, bill: Bill) -> bool:
    begin, end = claim.since - CLOCK_TOLERANCE, claim.until + CLOCK_TOLERANCE
    return any(edge is not None and begin < edge <= end for edge in (bill.since, bill.until))
