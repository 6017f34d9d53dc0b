"""Compares our record with a bill of sums by hour or day: what calls in vain may account for, and no more. Pure.

In each of the bill's sums stand the calls that were paid, to the token. What is left of it can only be requests that
calls in vain, or the sidecar, may have made in that time: so many of them as the sum has requests too many, of the
sizes that those calls had. A call under way at the edge of two sums may stand in either.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import Bill
from app.finance.reconciliation.by_request import NOTES, of_none, own_cause
from app.finance.reconciliation.claims import LONGEST_CALL, Claim
from app.finance.reconciliation.counts import NONE, Count, total
from app.finance.reconciliation.leftover import Explanation, Maybe, Play, explain, shortfall
from app.finance.reconciliation.reconciliation_types import Cause, Cell, Certainty, Finding, cell
from app.finance.reconciliation.repeats import READING, Unallocated, in_flight
from app.finance.reconciliation.sums import Sum, place, sums_of

_NOT_CERTAIN = "the bill gives sums only, so this is one way to account for it, not the only one"
# How far an estimated answer may be from the bill, in a sum.
_OUTPUT_PERCENT, _OUTPUT_TOKENS = 50, 600


def compare_sums(
    claims: Sequence[Claim], bill: Bill, unpriced: frozenset[str], unallocated: Sequence[Unallocated]
) -> tuple[tuple[Finding, ...], tuple[Cell, ...], int]:
    """The findings, the cells, and how many calls stand in a sum that leaves nothing open."""
    findings: list[Finding] = []
    cells: list[Cell] = []
    agreeing = 0
    for model in sorted({row.model for row in bill.rows} | {claim.call.model for claim in claims}):
        comparison = _Comparison(model, claims, bill, unallocated)
        for each in comparison.sums:
            found = list(comparison.findings(each))
            if found:
                made = cell(model, each.since, each.until, found, frozenset())
                cells.append(replace(made, unpriced=_unpriced(each, unpriced)))
                findings += [finding for finding in found if finding.cause is not Cause.AGREES]
                agreeing += 0 if made.unexplained else len(each.held)
    return tuple(findings), tuple(cells), agreeing


class _Comparison:
    """One model's sums with its calls."""

    def __init__(self, model: str, claims: Sequence[Claim], bill: Bill, unallocated: Sequence[Unallocated]) -> None:
        mine = [claim for claim in claims if claim.call.model == model]
        self.sums = sums_of(model, mine, bill)
        self._home = {claim.call.call_id: each for each in self.sums for claim in (*each.started, *each.vain)}
        maybes = _maybes([claim for claim in claims if claim.of_model(model)], unallocated)
        self._maybes = sorted(maybes, key=lambda maybe: (maybe.late, maybe.claim.call.call_id, maybe.number))
        self._used: set[Maybe] = set()
        self._placed = place(self.sums, mine, bill, self._guess, self._badness)

    def findings(self, each: Sum) -> Iterator[Finding]:
        """What became of one sum; to be asked in the order of time."""
        leftover = each.billed - total(claim.record for claim in each.held)
        maybes = self._may_hold(each)
        found = explain(leftover, maybes, _play(each.held))
        self._used.update(found.taken)
        yield from self._paid(each, found)
        yield from self._moved(each)
        yield from self._in_vain(each, found)

    def _guess(self, each: Sum, count: Count) -> int:
        return shortfall(each.billed - count, self._may_hold(each), _play([*each.started, *each.held]))

    def _badness(self, each: Sum, count: Count) -> int:
        found = explain(each.billed - count, self._may_hold(each), _play([*each.started, *each.held]))
        return found.unexplained.magnitude

    def _may_hold(self, each: Sum) -> list[Maybe]:
        near = (maybe for maybe in self._maybes if each.touches(maybe.early, maybe.late))
        return [maybe for maybe in near if maybe not in self._used]

    def _paid(self, each: Sum, found: Explanation) -> Iterator[Finding]:
        """The calls that were paid, and what of the sum nothing explains."""
        here = [claim for claim in each.held if self._home.get(claim.call.call_id) is each]
        exact = total(claim.record for claim in here if claim.exact)
        ours = total(claim.record for claim in here if not claim.exact)
        yield from _rest(each, exact, found.unexplained)
        if ours != NONE or found.estimates.magnitude:
            same = not found.estimates.magnitude
            billed = ours if same else ours + found.estimates
            yield _finding(each, Cause.AGREES if same else Cause.ESTIMATE, ours, billed, UsageBasis.ESTIMATED)

    def _moved(self, each: Sum) -> Iterator[Finding]:
        """Calls that began in this sum and stand in another one, or the other way round."""
        for claim in each.started:
            stands = self._placed.get(claim.call.call_id)
            if stands is not each:
                cause = Cause.BUCKET_EDGE if stands else Cause.PERIOD_EDGE
                yield _of_call(each, cause, claim, claim.record, NONE, NOTES[cause])
        for claim in each.held:
            if self._home.get(claim.call.call_id) is not each:
                yield _of_call(each, Cause.BUCKET_EDGE, claim, NONE, claim.record, NOTES[Cause.BUCKET_EDGE])

    def _in_vain(self, each: Sum, found: Explanation) -> Iterator[Finding]:
        """Requests that account for what the paid calls leave, and estimates of ours that account for nothing."""
        named = set()
        for maybe, billed in zip(found.taken, _shares(found), strict=True):
            at_home = maybe.number == 0 and maybe.claim in each.vain
            if at_home:
                named.add(maybe.claim.call.call_id)
            record = maybe.claim.record if at_home else NONE
            yield _of_call(each, maybe.cause, maybe.claim, record, billed, _NOT_CERTAIN)
        for claim in each.vain:
            if claim.call.call_id not in named and claim.record != NONE:
                yield _of_call(each, of_none(claim), claim, claim.record, NONE, _NOT_CERTAIN)


def _maybes(claims: Sequence[Claim], unallocated: Sequence[Unallocated]) -> Iterator[Maybe]:
    """The requests that may have been billed beside the paid ones."""
    starts = [claim.since for claim in claims]
    longest = max((claim.record.output_tokens for claim in claims), default=0)
    for claim in claims:
        if claim.own and not claim.owes:
            yield _one_of(claim, 0, own_cause(claim), longest)
        for number in range(1, claim.repeats + 1):
            yield _repeat(claim, number, _beside([claim], claims, starts), longest)
        if any(each.requests is None and in_flight(claim, each) for each in unallocated):
            yield _one_of(claim, claim.requests + 1, Cause.SIDECAR_RETRY, longest)
    for source, each in enumerate(unallocated):
        under_way = [claim for claim in claims if in_flight(claim, each)]
        for number in range(each.requests or 0 if under_way else 0):
            near = _beside(under_way, claims, starts)
            yield _repeat(under_way[-1], -1 - number - 1000 * source, near, longest)


def _one_of(claim: Claim, number: int, cause: Cause, longest: int) -> Maybe:
    """A request of that very claim."""
    most = max(claim.call.reserve_output, longest)
    late = max(claim.late, claim.last) if number == 0 and claim.slack == 0 else claim.late
    return Maybe(claim, number, cause, claim.early, late, claim.expected or 0, claim.slack, most)


def _repeat(claim: Claim, number: int, near: Sequence[Claim], longest: int) -> Maybe:
    """A repetition of one of the calls `near`: the sidecar does not say of which."""
    least = min(max(0, (each.expected or 0) - each.slack) for each in near)
    greatest = max((each.expected or 0) + each.slack for each in near)
    middle = (least + greatest) // 2
    early, late = min(each.early for each in near), max(each.late for each in near)
    most = max(claim.call.reserve_output, longest)
    return Maybe(claim, number, Cause.SIDECAR_RETRY, early, late, middle, greatest - middle, most)


def _beside(under_way: Sequence[Claim], claims: Sequence[Claim], starts: Sequence[datetime]) -> list[Claim]:
    """The calls among which the sidecar counted a repetition of those under way."""
    begin, end = min(each.since for each in under_way) - READING, max(each.until for each in under_way) + READING
    first, last = bisect_left(starts, begin - LONGEST_CALL), bisect_right(starts, end)
    return [each for each in claims[first:last] if each.until >= begin]


def _play(held: Sequence[Claim]) -> Play:
    estimated = [claim for claim in held if not claim.exact]
    output = sum(claim.record.output_tokens * _OUTPUT_PERCENT // 100 + _OUTPUT_TOKENS for claim in estimated)
    return Play(sum(claim.slack for claim in estimated), output)


def _shares(found: Explanation) -> Iterator[Count]:
    """What each request taken accounts for: its own input and an equal part of the output; the last, the rest."""
    left = found.billed
    for position, maybe in enumerate(found.taken):
        last = position == len(found.taken) - 1
        share = left if last else Count(1, maybe.entered, 0, found.billed.output_tokens // len(found.taken))
        yield share
        left -= share


def _rest(each: Sum, ours: Count, rest: Count) -> Iterator[Finding]:
    """What was paid to the token, and what is left of the sum, or lacking in it, beyond that."""
    cause = _of_rest(rest)
    if cause is Cause.DIFFERS:
        yield _finding(each, cause, ours, ours + rest)
        return
    lacking = cause is Cause.NOT_ON_BILL and min(*(ours + rest).lines) >= 0
    agreed = ours + rest if lacking else ours
    if agreed != NONE:
        yield _finding(each, Cause.AGREES, agreed, agreed)
    if cause is not Cause.AGREES:
        yield _finding(each, cause, *((-rest, NONE) if lacking else (NONE, rest)))


def _of_rest(rest: Count) -> Cause:
    signs = {part > 0 for part in (rest.requests or 0, *rest.lines) if part}
    if not signs:
        return Cause.AGREES
    return Cause.DIFFERS if len(signs) > 1 else Cause.UNKNOWN if True in signs else Cause.NOT_ON_BILL


def _finding(each: Sum, cause: Cause, record: Count, billed: Count, known: UsageBasis = UsageBasis.REPORTED) -> Finding:
    sure = Certainty.BOUNDED if cause is Cause.ESTIMATE else Certainty.CERTAIN
    return Finding(cause, sure, each.model, each.since, None, each.place, record, billed, NOTES.get(cause, ""), known)


def _of_call(each: Sum, cause: Cause, claim: Claim, record: Count, billed: Count, note: str) -> Finding:
    at = claim.since if each.since <= claim.since < each.until else each.since
    known = claim.call.usage.known
    return Finding(cause, Certainty.BOUNDED, each.model, at, claim.call, each.place, record, billed, note, known)


def _unpriced(each: Sum, unpriced: frozenset[str]) -> int:
    ours = (*each.started, *each.vain)
    return sum(claim.record.tokens for claim in ours if claim.call.call_id in unpriced)
