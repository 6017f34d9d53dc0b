"""Which of a bill's sums each paid call stands in: the one it began in, or, under way at its edge, the next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.finance.reconciliation.bill import Bill, BillRow
from app.finance.reconciliation.claims import CLOCK_TOLERANCE, Claim
from app.finance.reconciliation.counts import Count, total
from app.finance.reconciliation.subsets import good_subsets

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_MOST_WAYS = 200


@dataclass(eq=False)
class Sum:
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


Badness = Callable[[Sum, Count], int]


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


def sums_of(model: str, claims: Sequence[Claim], bill: Bill) -> list[Sum]:
    """The stretches in which the bill or our record has something of the model, by time; nothing is placed yet."""
    found: dict[tuple[datetime, datetime], Sum] = {}
    grid = Grid(bill)
    for row in bill.rows:
        if row.model == model:
            found.setdefault((row.since, row.until), Sum(model, row.since, row.until)).rows.append(row)
    for claim in claims:
        if claim.call.model == model:
            for at in (claim.since, claim.until) if claim.owes else (claim.since,):
                if _within(bill, at):
                    found.setdefault(grid.span(at), Sum(model, *grid.span(at)))
            if _within(bill, claim.since):
                began = found[grid.span(claim.since)]
                (began.started if claim.owes else began.vain).append(claim)
    return [found[span] for span in sorted(found)]


def place(sums: Sequence[Sum], claims: Sequence[Claim], bill: Bill, guess: Badness, badness: Badness) -> dict[str, Sum]:
    """Puts each paid call into the sum it stands in, where it leaves the least unexplained; returns call id -> sum.

    badness: how many tokens of a sum stay unexplained when the calls in it count that much. guess: the same, quicker,
    and never too many.
    """
    placed: dict[str, Sum] = {}
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


def _chosen(here: Sum, by_itself: list[Claim], free: list[Claim], guess: Badness, badness: Badness) -> list[Claim]:
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


def _near(claim: Claim, here: Sum) -> bool:
    return claim.since - CLOCK_TOLERANCE < here.until and claim.until + CLOCK_TOLERANCE >= here.since


def _movable(claim: Claim, here: Sum, later: datetime | None) -> bool:
    """Whether it may as well stand in the next sum."""
    return later is not None and claim.until + CLOCK_TOLERANCE >= later >= here.until


def _within(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)
