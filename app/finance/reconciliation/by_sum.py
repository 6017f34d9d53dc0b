"""Compares our record with a bill that gives sums only: tokens by model and hour, day or other stretch. Pure.

The paid calls stand in the bill's sums, to the token. A call under way at the edge of two sums may stand in either, so
what is carried over an edge is bounded: from nothing to all the calls under way there. What is left of a sum must lie
between the least and the most that may have been billed besides: as many requests as are left over, of those that
failed, interrupted and running calls and the sidecar's retries of that time may have made, and by how much the
estimates among the paid calls may be off. Tokens outside of these bounds are unexplained.

Bounds do not say which requests were billed, nor do they try which of them add up to what is left.
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
from app.finance.reconciliation.by_request import NOTES, UnattributedRetries, in_flight, of_none, own_cause
from app.finance.reconciliation.reconciliation_types import BillFinding, Cell, Certainty, DifferenceCause, cell

Bounds = tuple[int, int]  # least and most
_QUANTITIES = ("requests", "input_tokens", "cached_tokens", "output_tokens")
_REQUESTS, _INPUT, _CACHED, _OUTPUT = range(4)
_ANY_NUMBER = 10**18
# How far an estimated answer may be from the bill, in a sum.
_OUTPUT_PERCENT, _OUTPUT_TOKENS = 50, 600
# The sidecar's counter is read at intervals: calls this far apart may share one reading.
_READING = timedelta(seconds=5)
_EPOCH, _HOUR = datetime(1970, 1, 1, tzinfo=UTC), timedelta(hours=1)
_NOT_LEFT = "the paid calls leave no request of the sum for it; our record holds an estimate"


def compare_sums(
    claims: Sequence[Claim], bill: Bill, unpriced: frozenset[str], unattributed: Sequence[UnattributedRetries]
) -> tuple[tuple[BillFinding, ...], tuple[Cell, ...], int]:
    """The findings, the cells, and how many paid calls began in a sum that leaves nothing unexplained."""
    findings: list[BillFinding] = []
    cells: list[Cell] = []
    agreeing = 0
    for model in sorted({row.model for row in bill.rows} | {claim.call.model for claim in claims}):
        for here, of_sum in _Comparison(model, claims, bill, unattributed).findings():
            made = cell(model, here.since, here.until, of_sum, frozenset())
            ours = (*here.paid, *here.doubtful)
            reported, estimated = (
                total(claim.record for claim in ours if (claim.call.usage.basis is UsageBasis.REPORTED) is sure)
                for sure in (True, False)
            )
            lacking = sum(claim.record.tokens for claim in ours if claim.call.call_id in unpriced)
            cells.append(replace(made, reported=reported, estimated=estimated, unpriced=lacking))
            findings += [finding for finding in of_sum if finding.cause is not DifferenceCause.AGREES]
            agreeing += 0 if made.unexplained else len(here.paid)
    return tuple(findings), tuple(cells), agreeing


@dataclass(frozen=True, slots=True)
class Possible:
    """A request that may have been billed between `early` and `late`, and how many tokens it may have."""

    claim: Claim
    cause: DifferenceCause
    early: datetime
    late: datetime
    entered: Bounds
    output: Bounds


@dataclass(eq=False)
class BilledSum:
    """One model in one stretch of the bill, which may have no row of it.

    paid, doubtful: calls that began in it; of a doubtful one the bill may hold its request or not. possible: requests
    that may stand in it besides those of paid calls; `ending` of them in no later sum. cached: whether our record knows
    the cached tokens of all its paid calls. most_input: what the paid calls may leave of its input. By quantity,
    `besides` is what the possible requests may come to, `slack` how far the estimates among the paid calls may be off.
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
        """Where it stands in the bill."""
        return ", ".join(row.place for row in self.rows)

    def count(self, amounts: Sequence[int] | None = None) -> Count:
        """What the bill says, or `amounts` of it by quantity: None for what the bill or our record does not know."""
        whole = total(row.count for row in self.rows)
        requests, entered, cached, output = amounts or _parts(whole)
        unknown = whole.cached_tokens is None or not self.cached
        return Count(None if whole.requests is None else requests, entered, None if unknown else cached, output)

    def bound(self, quantity: int, left: Bounds) -> Bounds:
        """What the possible requests may come to, where the paid calls leave that much; to be asked for input first."""
        if quantity == _CACHED:  # at most all of their input, and of what is left of it
            return 0, max(0, min(self.besides[_INPUT][1], self.most_input))
        sizes = [possible.entered if quantity == _INPUT else possible.output for possible in self.possible]
        least = list(accumulate(sorted(size[0] for size in sizes), initial=0))
        most = list(accumulate(sorted((size[1] for size in sizes), reverse=True), initial=0))
        fewest, all_ = self.besides[_REQUESTS]
        if quantity == _INPUT:  # only so many requests as can have the input that is left, or come nearest to it
            self.most_input = left[1]
            off = {n: max(0, least[n] - left[1], left[0] - most[n]) for n in range(fewest, all_ + 1)}
            fitting = [number for number in off if off[number] <= max(self.slack[_INPUT], min(off.values()))]
            fewest, all_ = self.besides[_REQUESTS] = fitting[0], fitting[-1]
        return least[fewest], most[all_]


@dataclass(frozen=True, slots=True)
class SumShare:
    """What became of one quantity of a sum: what paid calls brought over its first edge (`come`) and took over its last
    one (`gone`), what is accounted for `besides` the paid calls, and what is unexplained."""

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
    """One quantity along the sums of a model, with the least that must be unexplained; in linear time.

    started: of the paid calls whose first possible sum it is. crossing: of those that may stand on either side of each
    edge, from the one before the first sum to the one after the last. at_home: of those that stand after the edge if
    each call stands where it began. bound: what may be billed besides, by sum and by what its paid calls leave of it.
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
    # Back through the bounds, with as little as can be in another sum than it began in.
    shares: list[SumShare] = []
    gone = _clamp(at_home[-1], *edges[-1])
    for number in range(len(billed) - 1, -1, -1):
        (low, high), (unexplained, (least, most)) = edges[number], steps[number]
        together = gone + billed[number] - unexplained - started[number]
        come = _clamp(at_home[number], max(low, together - most), min(high, together - least))
        shares.append(SumShare(come, gone, together - come, unexplained))
        gone = come
    return shares[::-1]


class _Comparison:
    """One model's sums with its calls."""

    def __init__(
        self, model: str, claims: Sequence[Claim], bill: Bill, unattributed: Sequence[UnattributedRetries]
    ) -> None:
        mine = [claim for claim in claims if claim.call.model == model]
        self.sums = sums_of(model, mine, bill)
        edges = len(self.sums) + 1
        self._crossing: list[list[Claim]] = [[] for _ in range(edges)]
        # By quantity, and by sum or edge.
        self._started, self._open, self._at_home = ([[0] * edges for _ in _QUANTITIES] for _ in range(3))
        for claim in mine:
            reach = self._reach(claim.since - CLOCK_TOLERANCE, claim.until + CLOCK_TOLERANCE)
            if claim.owes and reach:
                self._place(claim, reach, bill)
        for possible in _possible([claim for claim in claims if claim.of_model(model)], unattributed):
            reach = self._reach(possible.early, possible.late)
            for here in self.sums[reach.start : reach.stop]:
                here.possible.append(possible)
            if reach:
                self.sums[reach[-1]].ending += 1

    def _reach(self, early: datetime, late: datetime) -> range:
        """The sums that something of that time may stand in."""
        first = bisect_right(self.sums, early, key=lambda retries: retries.until)
        return range(first, bisect_right(self.sums, late, key=lambda retries: retries.since))

    def _place(self, claim: Claim, reach: range, bill: Bill) -> None:
        """A paid call stands in the sum it began in, or in one that it reaches into, or before or after the bill."""
        first, last = reach[0], reach[-1]
        home = bisect_right(self.sums, claim.since, key=lambda retries: retries.since) - 1
        if bill.since is not None and claim.since < bill.since:
            first = home = -1
        if bill.until is not None and claim.until + CLOCK_TOLERANCE >= bill.until:
            last = len(self.sums)
            home = home if claim.since < bill.until else last
        for quantity, amount in enumerate(_parts(claim.record)):
            if first >= 0:
                self._started[quantity][first] += amount
            for edge in range(first + 1, last + 1):
                self._open[quantity][edge] += amount
                self._at_home[quantity][edge] += amount if edge <= home else 0
        for edge in range(first + 1, last + 1):
            self._crossing[edge].append(claim)
        for here in self.sums[reach.start : reach.stop]:
            here.cached = here.cached and claim.record.cached_tokens is not None
            output = 0 if claim.exact else claim.record.output_tokens * _OUTPUT_PERCENT // 100 + _OUTPUT_TOKENS
            here.slack = list(map(add, here.slack, (0, claim.slack, claim.slack, output)))

    def findings(self) -> Iterator[tuple[BilledSum, list[BillFinding]]]:
        """The sums by time, with what became of each."""
        shares = [self._carry(quantity, name) for quantity, name in enumerate(_QUANTITIES)]
        for number, here in enumerate(self.sums):
            of_sum = [of_quantity[number] for of_quantity in shares]
            besides = [_clamp(share.besides, *bounds) for share, bounds in zip(of_sum, here.besides, strict=True)]
            off = [share.besides - accounted for share, accounted in zip(of_sum, besides, strict=True)]
            findings = [*self._of_paid(number, of_sum, here.count(off)), *_of_doubtful(here, here.count(besides))]
            if findings:
                yield here, findings

    def _carry(self, quantity: int, name: str) -> list[SumShare]:
        billed: list[int | None] = [getattr(here.count(), name) for here in self.sums]
        spent = 0  # possible requests that were billed in an earlier sum

        def bound(number: int, left: Bounds) -> Bounds:
            nonlocal spent
            here, unknown = self.sums[number], billed[number] is None
            if quantity == _REQUESTS:
                most = len(here.possible) - spent
                besides = (0, most) if unknown else (_clamp(left[0], 0, most), _clamp(left[1], 0, most))
                spent = max(0, spent + besides[0] - here.ending)
            else:
                besides = here.bound(quantity, left)
            here.besides[quantity] = besides
            slack = _ANY_NUMBER if unknown else here.slack[quantity]
            return besides[0] - slack, besides[1] + slack

        of_bill = [amount or 0 for amount in billed]
        return carry(of_bill, self._started[quantity], self._open[quantity], self._at_home[quantity], bound)

    def _of_paid(self, number: int, shares: Sequence[SumShare], off: Count) -> Iterator[BillFinding]:
        """The paid calls of a sum, those of its edges, by how much estimates are off, and what is unexplained."""
        here, began = self.sums[number], total(claim.record for claim in self.sums[number].paid)
        moved = [
            share.come + self._started[n][number] - share.gone - _parts(began)[n] for n, share in enumerate(shares)
        ]
        gone, come = [max(0, -tokens) for tokens in moved], [max(0, tokens) for tokens in moved]
        ours, estimates = began - Count(*gone), NONE
        if off.magnitude:
            estimated = total(claim.record for claim in here.paid if not claim.exact)
            estimates = Count(*map(min, _parts(estimated), _parts(ours)))
            yield _finding(here, DifferenceCause.ESTIMATE, estimates, here.count(_parts(estimates)) + off)
        yield from _rest(here, ours - estimates, here.count([share.unexplained for share in shares]))
        for amounts, edge, last in ((gone, number + 1, len(self.sums)), (come, number, 0)):
            if any(amounts):
                outside = edge == last and any(share.gone if last else share.come for share in shares)
                cause = DifferenceCause.PERIOD_EDGE if outside else DifferenceCause.BUCKET_EDGE
                counts = (NONE, here.count(come)) if amounts is come else (Count(*gone), NONE)
                yield _finding(here, cause, *counts, self._crossing[edge])


def _of_doubtful(here: BilledSum, billed: Count) -> Iterator[BillFinding]:
    """The requests that account for what the paid calls leave, with what our record holds of doubtful calls."""
    if not (billed.requests or billed.magnitude):
        for claim in here.doubtful:
            if claim.record != NONE:
                note = "" if claim.homeless else _NOT_LEFT
                yield _finding(here, of_none(claim), claim.record, NONE, [claim], note)
        return
    causes = Counter(possible.cause for possible in here.possible)
    (fewest, most), (least, greatest) = here.besides[_REQUESTS], here.besides[_INPUT]
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    possible = ", ".join(f"{times} {cause}" for cause, times in causes.items())
    note = f"{number} of these requests, of {least:,} to {greatest:,} input tokens, may have been billed: {possible}"
    cause = next(iter(causes)) if len(causes) == 1 else DifferenceCause.MIXED
    record = total(claim.record for claim in here.doubtful)
    yield _finding(here, cause, record, billed, [possible.claim for possible in here.possible], note)


def _rest(here: BilledSum, ours: Count, rest: Count) -> Iterator[BillFinding]:
    """What was paid to the token, and what is unexplained: too much in the sum, or too little."""
    signs = {part > 0 for part in (rest.requests or 0, *rest.lines) if part}
    if len(signs) > 1:
        yield _finding(here, DifferenceCause.DIFFERS, ours, here.count(_parts(ours)) + rest)
        return
    agreed = ours + rest if signs == {False} and min((ours + rest).lines) >= 0 else ours
    if agreed != NONE:
        yield _finding(here, DifferenceCause.AGREES, agreed, here.count(_parts(agreed)))
    if signs:
        cause = DifferenceCause.UNKNOWN if True in signs else DifferenceCause.NOT_ON_BILL
        yield _finding(here, cause, *((NONE, rest) if agreed is ours else (-rest, NONE)))


def _finding(
    here: BilledSum, cause: DifferenceCause, record: Count, billed: Count, calls: Sequence[Claim] = (), note: str = ""
) -> BillFinding:
    """calls: those that it may be of; one alone is named."""
    sure = Certainty.BOUNDED if cause.explains and cause is not DifferenceCause.AGREES else Certainty.CERTAIN
    call = calls[0].call if len(calls) == 1 else None
    at = call.started_at if call and here.since <= call.started_at < here.until else here.since
    reported = cause is not DifferenceCause.ESTIMATE and all(
        recorded.call.usage.basis is UsageBasis.REPORTED for recorded in calls
    )
    basis = UsageBasis.REPORTED if reported else UsageBasis.ESTIMATED
    return BillFinding(
        cause, sure, here.model, at, call, here.place, record, billed, note or NOTES.get(cause, ""), basis
    )


def sums_of(model: str, claims: Sequence[Claim], bill: Bill) -> list[BilledSum]:
    """The stretches in which the bill or our record has something of the model, by time."""
    sums: dict[tuple[datetime, datetime], BilledSum] = {}
    for row in bill.rows:
        if row.model == model:
            sums.setdefault((row.since, row.until), BilledSum(model, row.since, row.until)).rows.append(row)
    of_bill = sorted(sums)
    anchor = min((row.since for row in bill.rows), default=_EPOCH)
    width = min((row.until - row.since for row in bill.rows), default=_HOUR)

    def holding(at: datetime) -> BilledSum:
        """The bill's stretch; where it has none, one of its narrowest width between its others."""
        behind = bisect_right(of_bill, at, key=lambda span: span[0])
        before = [of_bill[behind - 1]] if behind else []
        if before and at < before[0][1]:
            return sums[before[0]]
        since = anchor + (at - anchor) // width * width
        until = min([since + width, *(span[0] for span in of_bill[behind : behind + 1])])
        since = max([since, *(span[1] for span in before)])
        return sums.setdefault((since, until), BilledSum(model, since, until))

    for claim in claims:
        if _within(bill, claim.since):
            here = holding(claim.since)
            (here.paid if claim.owes else here.doubtful).append(claim)
        if claim.owes and _within(bill, claim.until):
            holding(claim.until)
    return [sums[span] for span in sorted(sums)]


def _within(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)


def _possible(claims: Sequence[Claim], unattributed: Sequence[UnattributedRetries]) -> Iterator[Possible]:
    """The requests that may have been billed besides those of paid calls."""
    starts = [claim.since for claim in claims]
    longest = max((claim.record.output_tokens for claim in claims), default=0)
    for claim in claims:
        if claim.own and not claim.owes:
            yield _own(claim, longest)
        if any(retries.requests is None and in_flight(claim, retries) for retries in unattributed):
            yield _repeat([claim], claim, longest)
    for retries in unattributed:
        under_way = [claim for claim in claims if in_flight(claim, retries)] if retries.requests else []
        if under_way:
            yield from [_repeat(_beside(under_way, claims, starts), under_way[-1], longest)] * (retries.requests or 0)


def _own(claim: Claim, longest: int) -> Possible:
    """The own request of a call that owes none."""
    late = max(claim.late, claim.last) if claim.slack == 0 else claim.late
    output = (claim.record.output_tokens,) * 2 if claim.exact else (0, max(claim.call.reserve_output, longest))
    return Possible(claim, own_cause(claim), claim.early, late, _entered(claim), output)


def _repeat(near: Sequence[Claim], claim: Claim, longest: int) -> Possible:
    """A retry of one of the calls `near`, counted for `claim`: the sidecar does not say of which."""
    entered = [_entered(claim) for claim in near]
    between = min(least for least, _ in entered), max(most for _, most in entered)
    early, late = min(claim.early for claim in near), max(claim.late for claim in near)
    output = max(claim.call.reserve_output, longest)
    return Possible(claim, DifferenceCause.SIDECAR_RETRY, early, late, between, (0, output))


def _entered(claim: Claim) -> Bounds:
    expected = claim.expected or 0
    return max(0, expected - claim.slack), expected + claim.slack


def _beside(under_way: Sequence[Claim], claims: Sequence[Claim], starts: Sequence[datetime]) -> list[Claim]:
    """The calls among which the sidecar counted a retry of those under way."""
    begin, end = min(claim.since for claim in under_way) - _READING, max(claim.until for claim in under_way) + _READING
    first, last = bisect_left(starts, begin - LONGEST_CALL), bisect_right(starts, end)
    return [claim for claim in claims[first:last] if claim.until >= begin]


def _parts(count: Count) -> tuple[int, int, int, int]:
    return count.requests or 0, count.input_tokens, count.cached_tokens or 0, count.output_tokens


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
