"""Compares our record with a bill that names each request: every request and every call is accounted for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.domain.models import CallState
from app.finance.reconciliation.bill import Bill, BillRow
from app.finance.reconciliation.claims import CLOCK_TOLERANCE, Claim, slack
from app.finance.reconciliation.counts import NONE, Count
from app.finance.reconciliation.matching import LATE_ARRIVAL, Matching, Rank, Slot
from app.finance.reconciliation.reconciliation_types import Cause, Cell, Certainty, Finding, cell
from app.finance.reconciliation.repeats import Unallocated, other_repeats

_HOUR = timedelta(hours=1)
_OWN = {CallState.FAILED: Cause.FAILED_CALL, CallState.INTERRUPTED: Cause.INTERRUPTED_CALL}
NOTES = {
    Cause.FAILED_CALL: "its request reached the provider and was billed",
    Cause.INTERRUPTED_CALL: "its request reached the provider and was billed",
    Cause.RUNNING_CALL: "its request is billed; our record has no answer yet",
    Cause.SIDECAR_RETRY: "the sidecar asked again by itself, and the provider billed each request",
    Cause.NEVER_BILLED: "its request never reached the provider, or was not billed; our record holds an estimate",
    Cause.NOT_ON_BILL: "our record says that it was paid, and the bill has no such request",
    Cause.DIFFERS: "the provider reported other tokens to us than it billed",
    Cause.UNKNOWN: "billed, and no call of our record accounts for it",
    Cause.ESTIMATE: "the provider reports no usage; our record holds what we counted",
    Cause.UNKNOWN_PROVIDER: "the component was changed while it was under way; it may stand on another provider's bill",
    Cause.BUCKET_EDGE: "under way at the edge of two of the bill's sums; it stands in the other one",
    Cause.PERIOD_EDGE: "under way at the edge of the bill's period; it may stand on the bill before or after",
}
NOT_ALLOCATED = (
    "the sidecar asked again by itself: call and time fit, but its count names another call, or none, or was lost"
)


def compare_requests(
    claims: Sequence[Claim], bill: Bill, unallocated: Sequence[Unallocated] = ()
) -> tuple[Finding, ...]:
    """Every request of the bill and every call, with what became of it; also those that agree."""
    matching = Matching(claims, bill.rows, precision(bill))
    matching.run()
    repeats = other_repeats(matching, unallocated)
    differing = dict(_differing(matching, set(repeats)))
    findings = [_paired(matching, slot, index) for slot, index in matching.row_of.items()]
    findings += [_repeated(matching, number, index) for index, number in repeats.items()]
    findings += [_other_tokens(matching, slot, index) for slot, index in differing.items()]
    accounted = {*repeats, *differing.values()}
    findings += [_unknown(bill, index) for index in matching.free_rows if index not in accounted]
    findings += _left(matching, bill, differing)
    return tuple(sorted(findings, key=lambda each: (each.at, each.place, each.call.call_id if each.call else "")))


def precision(bill: Bill) -> timedelta:
    """How long one instant of the bill is: a second when it keeps whole seconds, else nothing."""
    whole = bool(bill.rows) and all(row.since.microsecond == 0 for row in bill.rows)
    return timedelta(seconds=1) - timedelta(microseconds=1) if whole else timedelta(0)


def cells_of(findings: Iterable[Finding], unpriced: frozenset[str]) -> tuple[Cell, ...]:
    """The findings by model and hour."""
    groups: defaultdict[tuple[str, datetime], list[Finding]] = defaultdict(list)
    for finding in findings:
        hour = finding.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        groups[finding.model, hour].append(finding)
    return tuple(cell(model, hour, hour + _HOUR, groups[model, hour], unpriced) for model, hour in sorted(groups))


def _paired(matching: Matching, slot: Slot, index: int) -> Finding:
    claim, row = matching.claims[slot.claim], matching.rows[index]
    cause = _cause(claim, slot)
    record = claim.record if slot.number == 0 else NONE
    if cause in (Cause.AGREES, Cause.ESTIMATE):
        record, billed = _alike(record, row.count)
        cause = Cause.AGREES if record == billed else cause
    else:
        billed = row.count
    if cause in _OWN.values() and row.since > claim.until + LATE_ARRIVAL:
        return replace(_finding(cause, claim, row, record, billed), note=_arrived_late(claim, row))
    return _finding(cause, claim, row, record, billed)


def _repeated(matching: Matching, number: int, index: int) -> Finding:
    claim, row = matching.claims[number], matching.rows[index]
    return _finding(Cause.SIDECAR_RETRY, claim, row, NONE, row.count, Certainty.BOUNDED)


def _cause(claim: Claim, slot: Slot) -> Cause:
    match slot.rank:
        case Rank.REPORTED:
            return Cause.AGREES
        case Rank.ESTIMATED:
            return Cause.ESTIMATE
        case Rank.REPEATED:
            return Cause.SIDECAR_RETRY
        case Rank.VAIN:
            return Cause.AGREES if claim.homeless and claim.exact else own_cause(claim)


def own_cause(claim: Claim) -> Cause:
    """Why a request of a call that owes none stands on the bill."""
    if claim.homeless:
        return Cause.UNKNOWN_PROVIDER
    return _OWN.get(claim.call.state, Cause.RUNNING_CALL)


def _alike(record: Count, billed: Count) -> tuple[Count, Count]:
    """Both with cached tokens, or both without: what one of them does not know cannot differ."""
    if record.cached_tokens is None or billed.cached_tokens is None:
        return _without_cached(record), _without_cached(billed)
    return record, billed


def _without_cached(count: Count) -> Count:
    return Count(count.requests, count.input_tokens, None, count.output_tokens)


def _differing(matching: Matching, taken_rows: set[int]) -> Iterator[tuple[Slot, int]]:
    """Calls that were paid, with the request that is theirs but for its tokens: the nearest first."""
    pairs = []
    free = [index for index in matching.free_rows if index not in taken_rows]
    for number, claim in enumerate(matching.claims):
        slot = Slot(number, 0, Rank.REPORTED)
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
    for _, index, slot in sorted(pairs, key=lambda pair: (pair[0], pair[1], pair[2].claim)):
        if slot not in taken and index not in taken:
            taken |= {slot, index}
            yield slot, index


def _other_tokens(matching: Matching, slot: Slot, index: int) -> Finding:
    claim, row = matching.claims[slot.claim], matching.rows[index]
    return _finding(Cause.DIFFERS, claim, row, *_alike(claim.record, row.count))


def _arrived_late(claim: Claim, row: BillRow) -> str:
    seconds = (row.since - claim.until).total_seconds()
    return f"its request reached the provider {seconds:.1f} s after the call had given up, and was billed"


def _finding(
    cause: Cause, claim: Claim, row: BillRow, record: Count, billed: Count, certainty: Certainty = Certainty.CERTAIN
) -> Finding:
    note = NOTES.get(cause, "") if certainty is Certainty.CERTAIN else NOT_ALLOCATED
    known = claim.call.usage.known
    return Finding(cause, certainty, row.model, row.since, claim.call, row.place, record, billed, note, known)


def _unknown(bill: Bill, index: int) -> Finding:
    row = bill.rows[index]
    cause = Cause.UNKNOWN
    return Finding(cause, Certainty.CERTAIN, row.model, row.since, None, row.place, NONE, row.count, NOTES[cause])


def _left(matching: Matching, bill: Bill, differing: dict[Slot, int]) -> Iterator[Finding]:
    """The calls whose own request the bill does not hold."""
    for number, claim in enumerate(matching.claims):
        if any(Slot(number, 0, rank) in found for rank in Rank for found in (matching.row_of, differing)):
            continue
        if (claim.record == NONE and not claim.owes) or not under_way(claim, bill):
            continue
        cause = Cause.NOT_ON_BILL if claim.owes else of_none(claim)
        certainty = Certainty.CERTAIN
        if cause is Cause.NOT_ON_BILL and _crosses_an_edge(claim, bill):
            cause, certainty = Cause.PERIOD_EDGE, Certainty.BOUNDED
        call, at = claim.call, claim.since
        yield Finding(cause, certainty, call.model, at, call, "", claim.record, NONE, NOTES[cause], call.usage.known)


def of_none(claim: Claim) -> Cause:
    """Why our record counts what the bill does not hold, of a call that owes nothing."""
    return Cause.UNKNOWN_PROVIDER if claim.homeless else Cause.NEVER_BILLED


def under_way(claim: Claim, bill: Bill) -> bool:
    """Whether some of the call's own time is in the bill's."""
    return (bill.since is None or claim.until >= bill.since) and (bill.until is None or claim.since < bill.until)


def _crosses_an_edge(claim: Claim, bill: Bill) -> bool:
    begin, end = claim.since - CLOCK_TOLERANCE, claim.until + CLOCK_TOLERANCE
    return any(edge is not None and begin < edge <= end for edge in (bill.since, bill.until))
