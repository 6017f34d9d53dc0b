"""Compares our record with a bill of sums: tokens by model and hour, day or other bucket.

The paid calls are in the sums to the token. A call in flight at the edge of two buckets may be in either, so the amount
carried over an edge lies between nothing and all calls in flight there. What remains of a sum must lie within bounds:
the requests that failed, interrupted and running calls and the sidecar's retries of that time may have made, plus or
minus the error of the estimates among the paid calls. Tokens outside these bounds are unexplained.

Bounds do not show which requests were billed, and do not try which of them add up to the remainder.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from operator import add

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import CLOCK_TOLERANCE, LONGEST_CALL, NONE, Bill, BillRow, Claim, Count, total
from app.finance.reconciliation.by_request import NOTES, UnattributedRetries, in_flight, own_cause, unbilled_cause
from app.finance.reconciliation.reconciliation_types import BillFinding, Cell, Certainty, DifferenceCause, cell

Bounds = tuple[int, int]  # minimum and maximum
_QUANTITIES = ("requests", "input_tokens", "cached_tokens", "output_tokens")
_REQUESTS, _INPUT, _CACHED, _OUTPUT = range(4)
_ANY_NUMBER = 10**18
# The tolerance of an estimated answer in a sum: percent of its output, plus tokens.
_OUTPUT_PERCENT, _OUTPUT_TOKENS = 50, 600
# The sidecar's counter is read at intervals: calls this far apart may be in one reading.
_READING_INTERVAL = timedelta(seconds=5)
_EPOCH, _HOUR = datetime(1970, 1, 1, tzinfo=UTC), timedelta(hours=1)
_NO_REMAINDER = "the paid calls account for the whole sum; our record holds an estimate"


def compare_sums(
    claims: Sequence[Claim], bill: Bill, unpriced: frozenset[str], unattributed: Sequence[UnattributedRetries]
) -> tuple[tuple[BillFinding, ...], tuple[Cell, ...], int]:
    """The findings, the cells, and the number of paid calls in buckets without unexplained tokens."""
    findings: list[BillFinding] = []
    cells: list[Cell] = []
    agreeing = 0
    for model in sorted({row.model for row in bill.rows} | {claim.call.model for claim in claims}):
        for bucket, bucket_findings in _Comparison(model, claims, bill, unattributed).findings():
            bucket_cell = cell(model, bucket.since, bucket.until, bucket_findings, frozenset())
            ours = (*bucket.paid, *bucket.doubtful)
            reported, estimated = (
                total(claim.record for claim in ours if (claim.call.usage.basis is UsageBasis.REPORTED) is is_reported)
                for is_reported in (True, False)
            )
            unpriced_tokens = sum(claim.record.tokens for claim in ours if claim.call.call_id in unpriced)
            cells.append(replace(bucket_cell, reported=reported, estimated=estimated, unpriced=unpriced_tokens))
            findings += [finding for finding in bucket_findings if finding.cause is not DifferenceCause.AGREES]
            agreeing += 0 if bucket_cell.unexplained else len(bucket.paid)
    return tuple(findings), tuple(cells), agreeing


@dataclass(frozen=True, slots=True)
class Possible:
    """A request that may have been billed between `early` and `late`, with the bounds of its tokens."""

    claim: Claim
    cause: DifferenceCause
    early: datetime
    late: datetime
    entered: Bounds
    output: Bounds


@dataclass(eq=False)
class BilledSum:
    """One model in one bucket of the bill, which may have no row for it.

    paid, doubtful: calls that began in the bucket; doubtful ones may have been billed or not. possible: requests that
    may be in the sum besides those of paid calls; `ending` of them can be in no later sum. cached: whether our record
    knows the cached tokens of all its paid calls. most_input: the most input that the paid calls may leave. By
    quantity: `besides`, the bounds of the possible requests, and `slack`, the error of estimates among the paid calls.
    """

    model: str
    since: datetime
    until: datetime
    rows: list[BillRow] = field(default_factory=list)
    paid: list[Claim] = field(default_factory=list)
    doubtful: list[Claim] = field(default_factory=list)
    possible: list[Possible] = field(default_factory=list)
    ending: int = 0
    cached: bool = True
    most_input: int = 0
    besides: list[Bounds] = field(default_factory=lambda: [(0, 0)] * 4)
    slack: list[int] = field(default_factory=lambda: [0] * 4)

    @property
    def place(self) -> str:
        """The places of its rows in the bill."""
        return ", ".join(row.place for row in self.rows)

    def count(self, amounts: Sequence[int] | None = None) -> Count:
        """The bill's count, or a count of `amounts` by quantity. Quantities that the bill or our record does not know
        are None."""
        billed = total(row.count for row in self.rows)
        requests, entered, cached, output = amounts or _quantities(billed)
        unknown = billed.cached_tokens is None or not self.cached
        return Count(None if billed.requests is None else requests, entered, None if unknown else cached, output)

    def bound(self, quantity: int, left: Bounds) -> Bounds:
        """The bounds of the possible requests, given those of the remainder `left`. Must be called for input first."""
        if quantity == _CACHED:  # at most all of their input, and at most all remaining input
            return 0, max(0, min(self.besides[_INPUT][1], self.most_input))
        sizes = [possible.entered if quantity == _INPUT else possible.output for possible in self.possible]
        least = list(accumulate(sorted(size[0] for size in sizes), initial=0))
        most = list(accumulate(sorted((size[1] for size in sizes), reverse=True), initial=0))
        fewest, largest = self.besides[_REQUESTS]
        if quantity == _INPUT:  # only the numbers of requests whose bounds contain the remaining input, or are nearest
            self.most_input = left[1]
            errors = {n: max(0, least[n] - left[1], left[0] - most[n]) for n in range(fewest, largest + 1)}
            fitting = [number for number in errors if errors[number] <= max(self.slack[_INPUT], min(errors.values()))]
            fewest, largest = self.besides[_REQUESTS] = fitting[0], fitting[-1]
        return least[fewest], most[largest]


@dataclass(frozen=True, slots=True)
class SumShare:
    """One quantity of a sum, split: `come`, carried in by paid calls over the first edge; `gone`, carried out over the
    last edge; `besides`, accounted for by other requests; and `unexplained`."""

    come: int
    gone: int
    besides: int
    unexplained: int


def carry(
    billed: Sequence[int],
    started: Sequence[int],
    crossing: Sequence[int],
    at_home: Sequence[int],
    bound: Callable[[int, Bounds], Bounds],
) -> list[SumShare]:
    """Splits one quantity along the sums of a model so that as little as possible is unexplained, in linear time.

    billed: the bill's amounts, one for each sum. started: amounts of the paid calls whose first possible sum it is.
    crossing: for each edge, from before the first sum to after the last, amounts of the paid calls that may be on
    either side. at_home: the part of those that is after the edge if each call is in the sum in which it began. bound:
    bounds of what may be billed besides, for the number of a sum and the bounds of what its paid calls leave.
    """
    edges: list[Bounds] = [(0, crossing[0])]
    steps: list[tuple[int, Bounds]] = []
    for number, amount in enumerate(billed):
        (low, high), most = edges[-1], crossing[number + 1]
        left = amount - started[number]
        besides = bound(number, (left - high, left - low + most))
        low, high = low + besides[0] - left, high + besides[1] - left
        unexplained = most - low if low > most else -min(high, 0)
        edges.append((max(0, low + unexplained), min(most, high + unexplained)))
        steps.append((unexplained, besides))
    # Backwards through the bounds, with as little as possible in another sum than it began in.
    shares: list[SumShare] = []
    gone = _clamp(at_home[-1], *edges[-1])
    for number in range(len(billed) - 1, -1, -1):
        (low, high), (unexplained, (least, most)) = edges[number], steps[number]
        come_and_besides = gone + billed[number] - unexplained - started[number]
        come = _clamp(at_home[number], max(low, come_and_besides - most), min(high, come_and_besides - least))
        shares.append(SumShare(come, gone, come_and_besides - come, unexplained))
        gone = come
    return shares[::-1]


class _Comparison:
    """The sums and the calls of one model."""

    def __init__(
        self, model: str, claims: Sequence[Claim], bill: Bill, unattributed: Sequence[UnattributedRetries]
    ) -> None:
        model_claims = [claim for claim in claims if claim.call.model == model]
        self.sums = sums_of(model, model_claims, bill)
        edges = len(self.sums) + 1
        self._crossing: list[list[Claim]] = [[] for _ in range(edges)]
        # Amounts by quantity, and by sum or edge; see `carry`.
        self._started, self._open, self._at_home = ([[0] * edges for _ in _QUANTITIES] for _ in range(3))
        for claim in model_claims:
            reach = self._reach(claim.since - CLOCK_TOLERANCE, claim.until + CLOCK_TOLERANCE)
            if claim.owes and reach:
                self._place(claim, reach, bill)
        for possible in _possible([claim for claim in claims if claim.of_model(model)], unattributed):
            reach = self._reach(possible.early, possible.late)
            for bucket in self.sums[reach.start : reach.stop]:
                bucket.possible.append(possible)
            if reach:
                self.sums[reach[-1]].ending += 1

    def _reach(self, early: datetime, late: datetime) -> range:
        """The numbers of the sums that a request of that time may be in."""
        first = bisect_right(self.sums, early, key=lambda bucket: bucket.until)
        return range(first, bisect_right(self.sums, late, key=lambda bucket: bucket.since))

    def _place(self, claim: Claim, reach: range, bill: Bill) -> None:
        """Adds a paid call, which may be in any sum of its `reach`, and before or after the bill if it crosses its
        edges."""
        first, last = reach[0], reach[-1]
        home = bisect_right(self.sums, claim.since, key=lambda bucket: bucket.since) - 1
        if bill.since is not None and claim.since < bill.since:
            first = home = -1
        if bill.until is not None and claim.until + CLOCK_TOLERANCE >= bill.until:
            last = len(self.sums)
            home = home if claim.since < bill.until else last
        for quantity, amount in enumerate(_quantities(claim.record)):
            if first >= 0:
                self._started[quantity][first] += amount
            for edge in range(first + 1, last + 1):
                self._open[quantity][edge] += amount
                self._at_home[quantity][edge] += amount if edge <= home else 0
        for edge in range(first + 1, last + 1):
            self._crossing[edge].append(claim)
        for bucket in self.sums[reach.start : reach.stop]:
            bucket.cached = bucket.cached and claim.record.cached_tokens is not None
            output = 0 if claim.exact else claim.record.output_tokens * _OUTPUT_PERCENT // 100 + _OUTPUT_TOKENS
            bucket.slack = list(map(add, bucket.slack, (0, claim.slack, claim.slack, output)))

    def findings(self) -> Iterator[tuple[BilledSum, list[BillFinding]]]:
        """The sums with their findings, ordered by time."""
        shares_by_quantity = [self._carry(quantity, name) for quantity, name in enumerate(_QUANTITIES)]
        for number, bucket in enumerate(self.sums):
            shares = [quantity_shares[number] for quantity_shares in shares_by_quantity]
            besides = [_clamp(share.besides, *bounds) for share, bounds in zip(shares, bucket.besides, strict=True)]
            errors = [share.besides - accounted for share, accounted in zip(shares, besides, strict=True)]
            findings = [
                *self._paid_findings(number, shares, bucket.count(errors)),
                *_doubtful_findings(bucket, bucket.count(besides)),
            ]
            if findings:
                yield bucket, findings

    def _carry(self, quantity: int, name: str) -> list[SumShare]:
        billed: list[int | None] = [getattr(bucket.count(), name) for bucket in self.sums]
        spent = 0  # possible requests that were billed in an earlier sum and may reach into this one

        def bound(number: int, left: Bounds) -> Bounds:
            nonlocal spent
            bucket, unknown = self.sums[number], billed[number] is None
            if quantity == _REQUESTS:
                most = len(bucket.possible) - spent
                besides = (0, most) if unknown else (_clamp(left[0], 0, most), _clamp(left[1], 0, most))
                spent = max(0, spent + besides[0] - bucket.ending)
            else:
                besides = bucket.bound(quantity, left)
            bucket.besides[quantity] = besides
            slack = _ANY_NUMBER if unknown else bucket.slack[quantity]
            return besides[0] - slack, besides[1] + slack

        amounts = [amount or 0 for amount in billed]
        return carry(amounts, self._started[quantity], self._open[quantity], self._at_home[quantity], bound)

    def _paid_findings(self, number: int, shares: Sequence[SumShare], error: Count) -> Iterator[BillFinding]:
        """The findings for the paid calls of a sum: the error of estimates, what agrees, what is unexplained, and what
        is in another sum."""
        bucket, began = self.sums[number], total(claim.record for claim in self.sums[number].paid)
        moved = [
            share.come + self._started[n][number] - share.gone - _quantities(began)[n] for n, share in enumerate(shares)
        ]
        gone, come = [max(0, -tokens) for tokens in moved], [max(0, tokens) for tokens in moved]
        ours, estimates = began - Count(*gone), NONE
        if error.magnitude:
            estimated = total(claim.record for claim in bucket.paid if not claim.exact)
            estimates = Count(*map(min, _quantities(estimated), _quantities(ours)))
            yield _finding(bucket, DifferenceCause.ESTIMATE, estimates, bucket.count(_quantities(estimates)) + error)
        unexplained = bucket.count([share.unexplained for share in shares])
        yield from _agreeing_and_unexplained(bucket, ours - estimates, unexplained)
        for amounts, edge, last in ((gone, number + 1, len(self.sums)), (come, number, 0)):
            if any(amounts):
                outside = edge == last and any(share.gone if last else share.come for share in shares)
                cause = DifferenceCause.PERIOD_EDGE if outside else DifferenceCause.BUCKET_EDGE
                counts = (NONE, bucket.count(come)) if amounts is come else (Count(*gone), NONE)
                yield _finding(bucket, cause, *counts, self._crossing[edge])


def _doubtful_findings(bucket: BilledSum, billed: Count) -> Iterator[BillFinding]:
    """The findings for the remainder of a sum: the requests that may account for it, with our record of doubtful
    calls."""
    if not (billed.requests or billed.magnitude):
        for claim in bucket.doubtful:
            if claim.record != NONE:
                note = "" if claim.lacks_provider else _NO_REMAINDER
                yield _finding(bucket, unbilled_cause(claim), claim.record, NONE, [claim], note)
        return
    causes = Counter(possible.cause for possible in bucket.possible)
    (fewest, most), (least, greatest) = bucket.besides[_REQUESTS], bucket.besides[_INPUT]
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    possible = ", ".join(f"{times} {cause}" for cause, times in causes.items())
    note = f"{number} of these requests, of {least:,} to {greatest:,} input tokens, may have been billed: {possible}"
    cause = next(iter(causes)) if len(causes) == 1 else DifferenceCause.MIXED
    record = total(claim.record for claim in bucket.doubtful)
    yield _finding(bucket, cause, record, billed, [possible.claim for possible in bucket.possible], note)


def _agreeing_and_unexplained(bucket: BilledSum, ours: Count, unexplained: Count) -> Iterator[BillFinding]:
    """The findings for what agrees to the token, and for what is unexplained: too much in the sum, or too little."""
    signs = {part > 0 for part in (unexplained.requests or 0, *unexplained.lines) if part}
    if len(signs) > 1:
        yield _finding(bucket, DifferenceCause.DIFFERS, ours, bucket.count(_quantities(ours)) + unexplained)
        return
    agreed = ours + unexplained if signs == {False} and min((ours + unexplained).lines) >= 0 else ours
    if agreed != NONE:
        yield _finding(bucket, DifferenceCause.AGREES, agreed, bucket.count(_quantities(agreed)))
    if signs:
        cause = DifferenceCause.UNKNOWN if True in signs else DifferenceCause.NOT_ON_BILL
        yield _finding(bucket, cause, *((NONE, unexplained) if agreed is ours else (-unexplained, NONE)))


def _finding(
    bucket: BilledSum,
    cause: DifferenceCause,
    record: Count,
    billed: Count,
    claims: Sequence[Claim] = (),
    note: str = "",
) -> BillFinding:
    """A finding of the bucket. `claims`: those that it may belong to; the call is named if there is only one."""
    is_bounded = cause.explains and cause is not DifferenceCause.AGREES
    certainty = Certainty.BOUNDED if is_bounded else Certainty.CERTAIN
    call = claims[0].call if len(claims) == 1 else None
    at = call.started_at if call and bucket.since <= call.started_at < bucket.until else bucket.since
    reported = cause is not DifferenceCause.ESTIMATE and all(
        claim.call.usage.basis is UsageBasis.REPORTED for claim in claims
    )
    basis = UsageBasis.REPORTED if reported else UsageBasis.ESTIMATED
    note = note or NOTES.get(cause, "")
    return BillFinding(cause, certainty, bucket.model, at, call, bucket.place, record, billed, note, basis)


def sums_of(model: str, claims: Sequence[Claim], bill: Bill) -> list[BilledSum]:
    """The buckets in which the bill or our record has something of the model, ordered by time."""
    sums: dict[tuple[datetime, datetime], BilledSum] = {}
    for row in bill.rows:
        if row.model == model:
            sums.setdefault((row.since, row.until), BilledSum(model, row.since, row.until)).rows.append(row)
    bill_spans = sorted(sums)
    anchor = min((row.since for row in bill.rows), default=_EPOCH)
    width = min((row.until - row.since for row in bill.rows), default=_HOUR)

    def bucket_at(at: datetime) -> BilledSum:
        """The bill's bucket at that time; if it has none, a bucket of its narrowest width between the others."""
        following = bisect_right(bill_spans, at, key=lambda span: span[0])
        before = [bill_spans[following - 1]] if following else []
        if before and at < before[0][1]:
            return sums[before[0]]
        since = anchor + (at - anchor) // width * width
        until = min([since + width, *(span[0] for span in bill_spans[following : following + 1])])
        since = max([since, *(span[1] for span in before)])
        return sums.setdefault((since, until), BilledSum(model, since, until))

    for claim in claims:
        if _within(bill, claim.since):
            bucket = bucket_at(claim.since)
            (bucket.paid if claim.owes else bucket.doubtful).append(claim)
        if claim.owes and _within(bill, claim.until):
            bucket_at(claim.until)
    return [sums[span] for span in sorted(sums)]


def _within(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)


def _possible(claims: Sequence[Claim], unattributed: Sequence[UnattributedRetries]) -> Iterator[Possible]:
    """The requests that may have been billed besides those of paid calls: of calls without a result, and retries."""
    starts = [claim.since for claim in claims]
    longest = max((claim.record.output_tokens for claim in claims), default=0)
    for claim in claims:
        if claim.own and not claim.owes:
            yield _own_request(claim, longest)
        if any(retries.requests is None and in_flight(claim, retries) for retries in unattributed):
            yield _retry([claim], claim, longest)
    for retries in unattributed:
        running = [claim for claim in claims if in_flight(claim, retries)] if retries.requests else []
        if running:
            yield from [_retry(_same_reading(running, claims, starts), running[-1], longest)] * (retries.requests or 0)


def _own_request(claim: Claim, longest: int) -> Possible:
    """The own request of a call that was not paid to a known provider. `longest`: the longest answer of the model."""
    late = max(claim.late, claim.last) if claim.slack == 0 else claim.late
    output = (claim.record.output_tokens,) * 2 if claim.exact else (0, max(claim.call.reserve_output, longest))
    return Possible(claim, own_cause(claim), claim.early, late, _input_bounds(claim), output)


def _retry(candidates: Sequence[Claim], claim: Claim, longest: int) -> Possible:
    """A retry of one of the candidates, counted for `claim`, since the sidecar does not name the call."""
    inputs = [_input_bounds(candidate) for candidate in candidates]
    entered = min(least for least, _ in inputs), max(most for _, most in inputs)
    early, late = min(candidate.early for candidate in candidates), max(candidate.late for candidate in candidates)
    output = max(claim.call.reserve_output, longest)
    return Possible(claim, DifferenceCause.SIDECAR_RETRY, early, late, entered, (0, output))


def _input_bounds(claim: Claim) -> Bounds:
    expected = claim.expected or 0
    return max(0, expected - claim.slack), expected + claim.slack


def _same_reading(running: Sequence[Claim], claims: Sequence[Claim], starts: Sequence[datetime]) -> list[Claim]:
    """The calls that may be in the same reading of the sidecar's counter as the running ones. `starts`: of `claims`."""
    begin = min(claim.since for claim in running) - _READING_INTERVAL
    end = max(claim.until for claim in running) + _READING_INTERVAL
    first, last = bisect_left(starts, begin - LONGEST_CALL), bisect_right(starts, end)
    return [claim for claim in claims[first:last] if claim.until >= begin]


def _quantities(count: Count) -> tuple[int, int, int, int]:
    return count.requests or 0, count.input_tokens, count.cached_tokens or 0, count.output_tokens


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
