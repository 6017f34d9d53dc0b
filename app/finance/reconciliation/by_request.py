"""Compares our record with a bill that lists each request: every request and every call is accounted for.

Requests and calls are paired one to one, as many as possible, the most certain first. Each claim has a slot for its own
request, and each retry that the sidecar counted is a slot for one request of any call in flight at that time. Slots are
filled by rank. A slot whose requests are all taken makes room by a chain of exchanges (an augmenting path), which
empties no filled slot. So as many slots of each rank are filled as the ranks before it allow.
"""

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

# How much later than its end a request may arrive that a call sent just before.
LATE_ARRIVAL = timedelta(milliseconds=500)


class Rank(IntEnum):
    """The kind of request that a slot is for; the most certain first."""

    REPORTED = 0  # paid, with the usage that the provider reported
    ESTIMATED = 1  # paid, with our estimate of its usage
    WASTED = 2  # of a call without a result; the request may have been billed
    REPEATED = 3  # a retry by the sidecar


@dataclass(frozen=True, slots=True)
class UnattributedRetries:
    """The number of requests that the sidecar repeated for a component in a period, without naming the calls; None if
    the counter was lost in that period. Times in UTC."""

    component: str
    since: datetime
    until: datetime
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one request: that of the claim with this number; if `REPEATED`, of the retry with this number."""

    number: int
    rank: Rank


class Matching:
    """The pairs of slots and rows; `row_of` and `slot_of` are inverse to each other. `repeats`: for each retry by the
    sidecar, the numbers of the claims that it may belong to. precision: how long one instant of the bill is."""

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
        # Whether the clocks may differ: a paid call was paired only with their tolerance, or none was paired.
        self.skewed = True
        self._precision = precision
        self._by_model: defaultdict[str, list[int]] = defaultdict(list)
        self._by_input: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for index in sorted(range(len(rows)), key=lambda row: rows[row].since):
            self._by_model[rows[index].model].append(index)
            self._by_input[rows[index].model, rows[index].count.input_tokens].append(index)

    @property
    def free_rows(self) -> list[int]:
        """The indexes of rows without a slot, ordered by time."""
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
        for rank in (Rank.ESTIMATED, Rank.WASTED, Rank.REPEATED):
            for tight in (True, False):
                if rank is not Rank.REPEATED:
                    self._fill_nearest(slots[rank], tight=tight)
                self._fill_in_order(slots[rank], tight=tight)
        self._fill_in_order(slots[Rank.WASTED], tight=False, late=True)
        for slot in slots[Rank.REPEATED]:
            # An exchange may have given the call an own request that is too close in time.
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
        """The indexes of rows that the slot may take, ordered by time. `tight`: without any tolerance. `late`: also
        rows that arrived long after the call gave up, if they have exactly the expected input."""
        if slot.rank is not Rank.REPEATED:
            return self._fitting(slot, tight, late)
        indexes = {index for number in self.repeats[slot.number] for index in self._repeated(number, tight)}
        return sorted(indexes, key=lambda index: self.rows[index].since)

    def claim_of(self, slot: Slot) -> Claim:
        """The claim whose request a filled slot holds; for a retry, the claim that ends first of those that fit."""
        if slot.rank is not Rank.REPEATED:
            return self.claims[slot.number]
        index = self.row_of[slot]
        fits = (
            self.claims[claim] for claim in self.repeats[slot.number] if index in self._repeated(claim, tight=False)
        )
        return min(fits, key=lambda claim: claim.until)

    def _repeated(self, number: int, tight: bool) -> list[int]:
        """The rows that may be a retry of a claim: those at least a pause apart from its own request."""
        own = self.row_of.get(Slot(number, _rank(self.claims[number])))
        fits = self._fitting(Slot(number, Rank.REPEATED), tight)
        if own is None:
            return list(fits)
        at = self.rows[own].since
        return [index for index in fits if abs(self.rows[index].since - at) >= SHORTEST_PAUSE]

    def _fitting(self, slot: Slot, tight: bool, late: bool = False) -> Iterator[int]:
        claim = self.claims[slot.number]
        begin, end = self._window(claim, slot, tight)
        last = max(end, claim.last) if late and slot.rank is Rank.WASTED else end
        for candidates in self._candidates(claim, slot):
            first = bisect_left(candidates, begin, key=lambda index: self.rows[index].since)
            behind = bisect_right(candidates, last, key=lambda index: self.rows[index].since)
            for index in candidates[first:behind]:
                row = self.rows[index]
                if _fits(claim, slot, row) and (row.since <= end or claim.has_expected_input(row.count)):
                    yield index

    def _window(self, claim: Claim, slot: Slot, tight: bool) -> tuple[datetime, datetime]:
        begin, end = claim.since, claim.until
        if tight:
            pass
        elif slot.rank is Rank.REPORTED or (self.skewed and slot.rank is Rank.ESTIMATED):
            begin, end = begin - CLOCK_TOLERANCE, end + CLOCK_TOLERANCE
        elif self.skewed:
            begin, end = claim.early, claim.late
        elif slot.rank is Rank.WASTED:
            end = min(claim.late, end + LATE_ARRIVAL)
        return begin - self._precision, end

    def _candidates(self, claim: Claim, slot: Slot) -> Iterable[list[int]]:
        model, usage = claim.call.model, claim.call.usage
        if not model:
            return self._by_model.values()
        if slot.rank is Rank.REPORTED:
            return (self._by_input.get((model, usage.input_tokens or 0), []),)
        if claim.expected is not None and claim.slack == 0:
            return (self._by_input.get((model, claim.expected), []),)
        return (self._by_model.get(model, []),)

    def _fill_in_order(self, slots: Iterable[Slot], *, tight: bool, late: bool = False) -> None:
        """Gives each slot, by the earliest end, the earliest free request: for equal requests, no order fills more."""
        hopeless: set[int] = set()
        for slot in sorted(slots, key=lambda slot: (self._end(slot), slot.number)):
            if len(self.slot_of) == len(self.rows):
                return
            if slot not in self.row_of:
                self._make_room(slot, tight, late, hopeless)

    def _end(self, slot: Slot) -> datetime:
        numbers = self.repeats[slot.number] if slot.rank is Rank.REPEATED else (slot.number,)
        return max(self.claims[number].until for number in numbers)

    def _fill_nearest(self, slots: Iterable[Slot], *, tight: bool) -> None:
        """Pairs slots with free requests, those with the smallest difference in tokens first."""
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
        """Gives the slot a request, if necessary by moving other slots to other requests. Requests from which no chain
        leads to a free one are added to `hopeless`; no later exchange changes that."""
        came_from: dict[int, Slot] = {}
        waiting = deque([slot])
        while waiting:
            current = waiting.popleft()
            for index in self.fitting(current, tight=tight, late=late):
                if index in came_from or index in hopeless:
                    continue
                came_from[index] = current
                if index not in self.slot_of:
                    self._exchange(index, came_from, slot)
                    return
                waiting.append(self.slot_of[index])
        hopeless.update(came_from)

    def _exchange(self, index: int, came_from: dict[int, Slot], first: Slot) -> None:
        while True:
            slot = came_from[index]
            previous = self.row_of.get(slot)
            self._take(slot, index)
            if slot == first or previous is None:
                return
            index = previous

    def _take(self, slot: Slot, index: int) -> None:
        self.row_of[slot] = index
        self.slot_of[index] = slot


def _rank(claim: Claim) -> Rank:
    """The rank of the slot for the claim's own request."""
    if claim.owes:
        return Rank.REPORTED if claim.exact else Rank.ESTIMATED
    return Rank.WASTED


def _repeats(claims: Sequence[Claim], unattributed: Sequence[UnattributedRetries]) -> Iterator[tuple[int, ...]]:
    """For each counted retry, the numbers of the claims in flight at that time. While the counter was lost, each claim
    in flight may have been repeated once."""
    uncounted: set[int] = set()
    for retries in unattributed:
        # A call shorter than the pause between two requests was not repeated.
        numbers = tuple(
            number
            for number, claim in enumerate(claims)
            if in_flight(claim, retries) and claim.until - claim.since >= SHORTEST_PAUSE
        )
        if retries.requests is None:
            uncounted.update(numbers)
        elif numbers:
            yield from repeat(numbers, retries.requests)
    yield from ((number,) for number in sorted(uncounted))


def in_flight(claim: Claim, unattributed: UnattributedRetries) -> bool:
    """Whether the call of that component was in flight at some time of the period."""
    if claim.call.component != unattributed.component:
        return False
    return claim.since <= unattributed.until and claim.until >= unattributed.since


def _fits(claim: Claim, slot: Slot, row: BillRow) -> bool:
    if not claim.of_model(row.model):
        return False
    return claim.equals(row.count) if slot.rank is Rank.REPORTED else claim.may_be(row.count)


def _distance(claim: Claim, row: BillRow) -> int:
    usage = claim.call.usage
    entered = abs((claim.expected or 0) - row.count.input_tokens)
    return entered + abs((usage.output_tokens or 0) - row.count.output_tokens)


_HOUR = timedelta(hours=1)
_OWN = {CallState.FAILED: DifferenceCause.FAILED_CALL, CallState.INTERRUPTED: DifferenceCause.INTERRUPTED_CALL}
NOTES = {
    DifferenceCause.FAILED_CALL: "its request reached the provider and was billed",
    DifferenceCause.INTERRUPTED_CALL: "its request reached the provider and was billed",
    DifferenceCause.RUNNING_CALL: "its request was billed; our record has no answer yet",
    DifferenceCause.SIDECAR_RETRY: "a retry by the sidecar, which does not name the call; call and time fit",
    DifferenceCause.NEVER_BILLED: "it did not reach the provider, or was not billed; our record has an estimate",
    DifferenceCause.NOT_ON_BILL: "paid in our record; the bill has no such request",
    DifferenceCause.DIFFERS: "the provider reported other tokens to us than it billed",
    DifferenceCause.UNKNOWN: "billed; no call of our record accounts for it",
    DifferenceCause.ESTIMATE: "the provider reports no usage; our record holds an estimate",
    DifferenceCause.UNKNOWN_PROVIDER: "the component was changed during the call; it may be on another provider's bill",
    DifferenceCause.BUCKET_EDGE: "in flight at the edge of two of the bill's sums; it is in the other one",
    DifferenceCause.PERIOD_EDGE: "in flight at the edge of the bill's period; it may be on the bill before or after",
}


def compare_requests(
    claims: Sequence[Claim], bill: Bill, unattributed: Sequence[UnattributedRetries] = ()
) -> tuple[BillFinding, ...]:
    """A finding for every request of the bill and every call, also for those that agree, ordered by time."""
    matching = Matching(claims, bill.rows, precision(bill), unattributed)
    matching.run()
    differing = dict(_pairs_with_other_tokens(matching))
    findings = [_pair_finding(matching, slot, index) for slot, index in matching.row_of.items()]
    for slot, index in differing.items():
        claim, row = matching.claims[slot.number], matching.rows[index]
        findings.append(_finding(DifferenceCause.DIFFERS, claim, row, *_comparable(claim.record, row.count)))
    accounted = set(differing.values())
    findings += [_unknown(bill, index) for index in matching.free_rows if index not in accounted]
    findings += _calls_without_request(matching, bill, differing)
    return tuple(
        sorted(findings, key=lambda finding: (finding.at, finding.place, finding.call.call_id if finding.call else ""))
    )


def precision(bill: Bill) -> timedelta:
    """How long one instant of the bill is: just under a second if all its times are whole seconds, otherwise zero."""
    whole = bool(bill.rows) and all(row.since.microsecond == 0 for row in bill.rows)
    return timedelta(seconds=1) - timedelta(microseconds=1) if whole else timedelta(0)


def cells_of(findings: Iterable[BillFinding], unpriced: frozenset[str]) -> tuple[Cell, ...]:
    """The cells of the findings, by model and hour."""
    groups: defaultdict[tuple[str, datetime], list[BillFinding]] = defaultdict(list)
    for finding in findings:
        hour = finding.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        groups[finding.model, hour].append(finding)
    return tuple(cell(model, hour, hour + _HOUR, groups[model, hour], unpriced) for model, hour in sorted(groups))


def _pair_finding(matching: Matching, slot: Slot, index: int) -> BillFinding:
    claim, row = matching.claim_of(slot), matching.rows[index]
    if slot.rank is Rank.REPEATED:
        return _finding(DifferenceCause.SIDECAR_RETRY, claim, row, NONE, row.count, Certainty.BOUNDED)
    cause, record = _cause(claim, slot), claim.record
    if cause in (DifferenceCause.AGREES, DifferenceCause.ESTIMATE):
        record, billed = _comparable(record, row.count)
        cause = DifferenceCause.AGREES if record == billed else cause
    else:
        billed = row.count
    if cause in _OWN.values() and row.since > claim.until + LATE_ARRIVAL:
        seconds = (row.since - claim.until).total_seconds()
        note = f"its request reached the provider {seconds:.1f} s after the call had given up, and was billed"
        return replace(_finding(cause, claim, row, record, billed), note=note)
    return _finding(cause, claim, row, record, billed)


def _cause(claim: Claim, slot: Slot) -> DifferenceCause:
    match slot.rank:
        case Rank.REPORTED:
            return DifferenceCause.AGREES
        case Rank.ESTIMATED:
            return DifferenceCause.ESTIMATE
        case _:
            return DifferenceCause.AGREES if claim.lacks_provider and claim.exact else own_cause(claim)


def own_cause(claim: Claim) -> DifferenceCause:
    """The cause for a request on the bill of a call that was not paid to a known provider."""
    if claim.lacks_provider:
        return DifferenceCause.UNKNOWN_PROVIDER
    return _OWN.get(claim.call.state, DifferenceCause.RUNNING_CALL)


def _comparable(record: Count, billed: Count) -> tuple[Count, Count]:
    """Both counts with cached tokens, or both without if one of them does not know its own."""
    if record.cached_tokens is None or billed.cached_tokens is None:
        return replace(record, cached_tokens=None), replace(billed, cached_tokens=None)
    return record, billed


def _pairs_with_other_tokens(matching: Matching) -> Iterator[tuple[Slot, int]]:
    """Paid calls without a request, each with the free row of its time that differs least in tokens."""
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


def _calls_without_request(matching: Matching, bill: Bill, differing: Iterable[Slot]) -> Iterator[BillFinding]:
    """The calls of the bill's time whose own request the bill does not have."""
    paired = {slot.number for slot in (*matching.row_of, *differing) if slot.rank is not Rank.REPEATED}
    for number, claim in enumerate(matching.claims):
        if number in paired:
            continue
        if (claim.record == NONE and not claim.owes) or not in_time_of(bill, claim):
            continue
        cause = DifferenceCause.NOT_ON_BILL if claim.owes else unbilled_cause(claim)
        certainty = Certainty.CERTAIN
        if cause is DifferenceCause.NOT_ON_BILL and _crosses_an_edge(claim, bill):
            cause, certainty = DifferenceCause.PERIOD_EDGE, Certainty.BOUNDED
        call, at = claim.call, claim.since
        yield BillFinding(
            cause, certainty, call.model, at, call, "", claim.record, NONE, NOTES[cause], call.usage.basis
        )


def unbilled_cause(claim: Claim) -> DifferenceCause:
    """The cause for a call in our record that was not paid to a known provider and is not on the bill."""
    return DifferenceCause.UNKNOWN_PROVIDER if claim.lacks_provider else DifferenceCause.NEVER_BILLED


def in_time_of(bill: Bill, claim: Claim) -> bool:
    """Whether the call was in flight at some time that the bill covers."""
    return (bill.since is None or claim.until >= bill.since) and (bill.until is None or claim.since < bill.until)


def _crosses_an_edge(claim: Claim, bill: Bill) -> bool:
    begin, end = claim.since - CLOCK_TOLERANCE, claim.until + CLOCK_TOLERANCE
    return any(edge is not None and begin < edge <= end for edge in (bill.since, bill.until))
