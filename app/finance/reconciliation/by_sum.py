"""Compares our record with a bill of sums by hour or day: what calls in vain may account for, and no more. Pure.

In each of the bill's sums stand the calls that were paid, to the token. What is left of it can only be requests that
calls in vain, or the sidecar, may have made in that time: so many of them as the sum has requests too many, of the
sizes that those calls had. A call under way at the edge of two sums may stand in either.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import NONE, Bill, BillRow, Count, total
from app.finance.reconciliation.by_request import NOTES, READING, Unallocated, in_flight, of_none, own_cause
from app.finance.reconciliation.claims import CLOCK_TOLERANCE, LONGEST_CALL, Claim
from app.finance.reconciliation.reconciliation_types import Cause, Cell, Certainty, Finding, cell

# Which of some things together come closest to what is wanted: all sums are looked at, up to a limit.

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
    return _positions(sizes, prefixes, number, _nearest_sum(sums[number], max(0, wanted)))


def _nearest_sum(sums: int, wanted: int) -> int:
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


# Which of a bill's sums each paid call stands in: the one it began in, or, under way at its edge, the next.

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_MOST_WAYS = 200


@dataclass(eq=False)
class BilledSum:
    """One model in one stretch of the bill, which may hold nothing of it.

    started: paid calls that began in it. held: paid calls that stand in it. vain: other calls that began in it.
    """

    model: str
    since: datetime
    until: datetime
    rows: list[BillRow] = field(default_factory=list)
    started: list[Claim] = field(default_factory=list)
    held: list[Claim] = field(default_factory=list)
    vain: list[Claim] = field(default_factory=list)

    @property
    def billed(self) -> Count:
        """What the bill says."""
        return total(row.count for row in self.rows)

    @property
    def place(self) -> str:
        """Where it stands in the bill."""
        return ", ".join(row.place for row in self.rows)

    @property
    def empty(self) -> bool:
        """Whether there is nothing on either side."""
        return not (self.rows or self.started or self.held or self.vain)

    def touches(self, early: datetime, late: datetime) -> bool:
        """Whether something of that time may stand in it."""
        return early < self.until and late >= self.since


Badness = Callable[[BilledSum, Count], int]


class Grid:
    """Which stretch of the bill an instant belongs to."""

    def __init__(self, bill: Bill) -> None:
        self._spans = sorted({(row.since, row.until) for row in bill.rows})
        self._width = min((until - since for since, until in self._spans), default=_HOUR)

    def span(self, at: datetime) -> tuple[datetime, datetime]:
        """The stretch that holds `at`: one of the bill's, else one of the same width that the bill has nothing for."""
        for since, until in self._spans:
            if since <= at < until:
                return since, until
        since = _EPOCH + (at - _EPOCH) // self._width * self._width
        return since, since + self._width


def sums_of(model: str, claims: Sequence[Claim], bill: Bill) -> list[BilledSum]:
    """The stretches in which the bill or our record has something of the model, by time; nothing is placed yet."""
    found: dict[tuple[datetime, datetime], BilledSum] = {}
    grid = Grid(bill)
    for row in bill.rows:
        if row.model == model:
            found.setdefault((row.since, row.until), BilledSum(model, row.since, row.until)).rows.append(row)
    for claim in claims:
        if claim.call.model == model:
            for at in (claim.since, claim.until) if claim.owes else (claim.since,):
                if _within(bill, at):
                    found.setdefault(grid.span(at), BilledSum(model, *grid.span(at)))
            if _within(bill, claim.since):
                began = found[grid.span(claim.since)]
                (began.started if claim.owes else began.vain).append(claim)
    return [found[span] for span in sorted(found)]


def place(
    sums: Sequence[BilledSum], claims: Sequence[Claim], bill: Bill, guess: Badness, badness: Badness
) -> dict[str, BilledSum]:
    """Puts each paid call into the sum it stands in, where it leaves the least unexplained; returns call id -> sum.

    badness: how many tokens of a sum stay unexplained when the calls in it count that much. guess: the same, quicker,
    and never too many.
    """
    placed: dict[str, BilledSum] = {}
    waiting = sorted((claim for claim in claims if claim.owes), key=lambda claim: claim.since)
    for position, here in enumerate(sums):
        later = sums[position + 1].since if position + 1 < len(sums) else bill.until
        pool = [claim for claim in waiting if _near(claim, here)]
        free = [claim for claim in pool if _movable(claim, here, later) or not _within(bill, claim.since)]
        by_itself = [claim for claim in pool if claim not in free or here.since <= claim.since < here.until]
        chosen = _chosen(here, by_itself, free, guess, badness)
        for claim in chosen:
            placed[claim.call.call_id] = here
        here.held.extend(chosen)
        waiting = [claim for claim in waiting if claim.call.call_id not in placed]
    return placed


def _chosen(
    here: BilledSum, by_itself: list[Claim], free: list[Claim], guess: Badness, badness: Badness
) -> list[Claim]:
    """The calls that stand here: those that do by themselves, but for as few changes as explain the most."""
    start = total(claim.record for claim in by_itself)
    if not free or badness(here, start) == 0:
        return by_itself

    def changed(known: Count, claim: Claim) -> Count:
        return known - claim.record if claim in by_itself else known + claim.record

    ways = good_subsets(free, start, changed, lambda count: guess(here, count), _MOST_WAYS)
    _, changes = min(ways, key=lambda way: badness(here, way[0]))
    kept = [claim for claim in by_itself if claim not in changes]
    return kept + [claim for claim in changes if claim not in by_itself]


def _near(claim: Claim, here: BilledSum) -> bool:
    return claim.since - CLOCK_TOLERANCE < here.until and claim.until + CLOCK_TOLERANCE >= here.since


def _movable(claim: Claim, here: BilledSum, later: datetime | None) -> bool:
    """Whether it may as well stand in the next sum."""
    return later is not None and claim.until + CLOCK_TOLERANCE >= later >= here.until


def _within(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)


# What is left of a sum once its paid calls are taken away, against what may account for it.
#
# A leftover of n requests can only be n of the requests that calls in vain, or the sidecar, may have made: its input
# lies between their n smallest and their n largest together, and is one of the sums that n of them can have.


@dataclass(frozen=True, slots=True)
class Maybe:
    """A request that may have been billed between `early` and `late`: the `number`-th of its claim.

    entered: its input tokens, give or take `slack`. output_at_most: no more output than this.
    """

    claim: Claim
    number: int
    cause: Cause
    early: datetime
    late: datetime
    entered: int
    slack: int
    output_at_most: int


@dataclass(frozen=True, slots=True)
class Play:
    """How far the estimates among the paid calls may be from the bill together."""

    entered: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """taken: the requests that account for the leftover. billed: what they account for. estimates: what the play of
    estimates does. unexplained: the rest."""

    taken: tuple[Maybe, ...]
    billed: Count
    estimates: Count
    unexplained: Count


def explain(leftover: Count, maybes: Sequence[Maybe], play: Play) -> Explanation:
    """The best explanation of a leftover; nothing is taken for granted beyond it."""
    ways = (_with(leftover, maybes, number, play) for number in _numbers(leftover, maybes))
    return min(ways, key=lambda way: (way.unexplained.magnitude, len(way.taken)))


def shortfall(leftover: Count, maybes: Sequence[Maybe], play: Play) -> int:
    """Tokens of a leftover that cannot be explained whichever requests were billed: quick, and never too many."""
    return min(_outside(leftover, maybes, play, number) for number in _numbers(leftover, maybes))


def _numbers(leftover: Count, maybes: Sequence[Maybe]) -> Iterable[int]:
    """How many requests may be billed of them: as many as are left over, or any number when the bill counts none."""
    if leftover.requests is None:
        return range(len(maybes) + 1)
    return (max(0, min(leftover.requests, len(maybes))),)


def _outside(leftover: Count, maybes: Sequence[Maybe], play: Play, number: int) -> int:
    least, most = _extremes(maybes, number)
    output = sum(sorted((maybe.output_at_most for maybe in maybes), reverse=True)[:number])
    return (leftover - _nearest_left(leftover, least, most, output, play)).magnitude


def _extremes(maybes: Sequence[Maybe], number: int) -> tuple[int, int]:
    """The least and the most input that so many of them can have."""
    least = sum(sorted(max(0, maybe.entered - maybe.slack) for maybe in maybes)[:number])
    return least, sum(sorted((maybe.entered + maybe.slack for maybe in maybes), reverse=True)[:number])


def _nearest_left(leftover: Count, least: int, most: int, output: int, play: Play) -> Count:
    """What of the leftover those bounds allow."""
    entered = _clamp(leftover.input_tokens, least - play.entered, most + play.entered)
    cached = leftover.cached_tokens
    if cached is not None:
        cached = _clamp(cached, 0, max(0, min(most, entered)))
    given = _clamp(leftover.output_tokens, -play.output, output + play.output)
    return Count(leftover.requests, entered, cached, given)


def _with(leftover: Count, maybes: Sequence[Maybe], number: int, play: Play) -> Explanation:
    """The explanation by those of them, so many, whose input comes closest together."""
    positions = nearest_subset([maybe.entered for maybe in maybes], number, leftover.input_tokens)
    if positions is None:  # too many to try: their bounds have to do
        taken = tuple(maybes[:number])
        least, most = _extremes(maybes, number)
    else:
        taken = tuple(maybes[position] for position in positions)
        least, most = _extremes(taken, number)
    output = sum(maybe.output_at_most for maybe in taken)
    explained = _nearest_left(leftover, least, most, output, play)
    billed = _nearest_left(explained, least, most, output, Play()) if taken else NONE
    requests = number if leftover.requests is not None else None
    billed = Count(requests, billed.input_tokens, billed.cached_tokens, billed.output_tokens)
    rest = explained - billed
    estimates = Count(0, rest.input_tokens, rest.cached_tokens, rest.output_tokens)
    return Explanation(taken, billed, estimates, leftover - billed - estimates)


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


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

    def findings(self, each: BilledSum) -> Iterator[Finding]:
        """What became of one sum; to be asked in the order of time."""
        leftover = each.billed - total(claim.record for claim in each.held)
        maybes = self._may_hold(each)
        found = explain(leftover, maybes, _play(each.held))
        self._used.update(found.taken)
        yield from self._paid(each, found)
        yield from self._moved(each)
        yield from self._in_vain(each, found)

    def _guess(self, each: BilledSum, count: Count) -> int:
        return shortfall(each.billed - count, self._may_hold(each), _play([*each.started, *each.held]))

    def _badness(self, each: BilledSum, count: Count) -> int:
        found = explain(each.billed - count, self._may_hold(each), _play([*each.started, *each.held]))
        return found.unexplained.magnitude

    def _may_hold(self, each: BilledSum) -> list[Maybe]:
        near = (maybe for maybe in self._maybes if each.touches(maybe.early, maybe.late))
        return [maybe for maybe in near if maybe not in self._used]

    def _paid(self, each: BilledSum, found: Explanation) -> Iterator[Finding]:
        """The calls that were paid, and what of the sum nothing explains."""
        here = [claim for claim in each.held if self._home.get(claim.call.call_id) is each]
        exact = total(claim.record for claim in here if claim.exact)
        ours = total(claim.record for claim in here if not claim.exact)
        yield from _rest(each, exact, found.unexplained)
        if ours != NONE or found.estimates.magnitude:
            same = not found.estimates.magnitude
            billed = ours if same else ours + found.estimates
            yield _finding(each, Cause.AGREES if same else Cause.ESTIMATE, ours, billed, UsageBasis.ESTIMATED)

    def _moved(self, each: BilledSum) -> Iterator[Finding]:
        """Calls that began in this sum and stand in another one, or the other way round."""
        for claim in each.started:
            stands = self._placed.get(claim.call.call_id)
            if stands is not each:
                cause = Cause.BUCKET_EDGE if stands else Cause.PERIOD_EDGE
                yield _of_call(each, cause, claim, claim.record, NONE, NOTES[cause])
        for claim in each.held:
            if self._home.get(claim.call.call_id) is not each:
                yield _of_call(each, Cause.BUCKET_EDGE, claim, NONE, claim.record, NOTES[Cause.BUCKET_EDGE])

    def _in_vain(self, each: BilledSum, found: Explanation) -> Iterator[Finding]:
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


def _rest(each: BilledSum, ours: Count, rest: Count) -> Iterator[Finding]:
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


def _finding(
    each: BilledSum, cause: Cause, record: Count, billed: Count, known: UsageBasis = UsageBasis.REPORTED
) -> Finding:
    sure = Certainty.BOUNDED if cause is Cause.ESTIMATE else Certainty.CERTAIN
    return Finding(cause, sure, each.model, each.since, None, each.place, record, billed, NOTES.get(cause, ""), known)


def _of_call(each: BilledSum, cause: Cause, claim: Claim, record: Count, billed: Count, note: str) -> Finding:
    at = claim.since if each.since <= claim.since < each.until else each.since
    known = claim.call.usage.known
    return Finding(cause, Certainty.BOUNDED, each.model, at, claim.call, each.place, record, billed, note, known)


def _unpriced(each: BilledSum, unpriced: frozenset[str]) -> int:
    ours = (*each.started, *each.vain)
    return sum(claim.record.tokens for claim in ours if claim.call.call_id in unpriced)
