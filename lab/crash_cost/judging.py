"""From bills to the result: what each arm paid twice, beside what its trace and the theory say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lab.crash_cost import trace
from lab.crash_cost.jobs import Load
from lab.crash_cost.spend import Prices, Row, Spend, costing, digests
from lab.crash_cost.trace import Arm, Digests, Kind, Point, Timeline
from lab.crash_cost.views import ArmView, KindView, LoadView, PointView, TraceView, ratio, share, spend_view
from runtime.errors import UserError

# What runs have left behind: values only.

Books = dict[str, Counter[tuple[Any, ...]]]


@dataclass(frozen=True)
class Clean:
    """A run without a kill: what every job asks, in order, and what stands on the bill and in the books for it."""

    timelines: dict[str, Timeline]
    rows: tuple[Row, ...]
    books: Books


@dataclass(frozen=True)
class Seen:
    """A run under a trace, in one arm."""

    arm: Arm
    rows: tuple[Row, ...]
    books: Books
    seconds: float


def otherwise(seen: Seen, clean: Clean, book: str) -> int:
    """Entries of a book that the clean run does not have, and entries of its that are missing."""
    mine, theirs = seen.books[book], clean.books[book]
    return (mine - theirs).total() + (theirs - mine).total()


def extra(seen: Seen, clean: Clean) -> Digests:
    """The requests that stand on the bill more often than in the clean run. Raises UserError when one is missing."""
    missing = digests(clean.rows) - digests(seen.rows)
    if missing:
        raise UserError(f"{seen.arm.words}: {missing.total()} model calls of the clean run are not on the bill.")
    return digests(seen.rows) - digests(clean.rows)


_HUNDRED = Decimal(100)


@dataclass(frozen=True)
class Worked:
    """One trace, in both arms."""

    rate: float
    points: tuple[Point, ...]
    seen: Mapping[Arm, Seen]


def judged(load: Load, clean: Clean, worked: Sequence[Worked], prices: Prices) -> LoadView:
    """One kind of task."""
    judge = _Judge(clean, prices)
    traces = tuple(judge.trace(each) for each in worked)
    model_calls = Decimal(judge.clean_spend.requests) / len(clean.timelines)
    return LoadView(
        name=load.name,
        title=load.title,
        tasks=len(clean.timelines),
        model_calls=share(model_calls, Decimal(1)),
        clean=spend_view(judge.clean_spend),
        traces=traces,
        kinds=tuple(judge.kinds(worked)),
        ratio=ratio(traces),
        expected_ratio=share(Decimal(2), model_calls + 1),
    )


class _Judge:
    def __init__(self, clean: Clean, prices: Prices) -> None:
        self._clean = clean
        self._prices = prices
        self._cost = prices.by_digest(clean.rows)
        self.clean_spend = prices.spend(clean.rows)

    def trace(self, worked: Worked) -> TraceView:
        killed = [point.job for point in worked.points]
        rate = Decimal(len(killed)) / len(self._clean.timelines)
        restart, resume = (self._arm(arm, worked) for arm in (Arm.RESTART, Arm.RESUME))
        repeated = restart.repeated.amount
        return TraceView(
            rate=share(rate, Decimal(1)),
            kills=len(killed),
            upper_bound=rate * self.clean_spend.amount,
            ceiling=self._costing(trace.all_requests(killed, self._clean.timelines)).amount,
            restart=restart,
            resume=resume,
            ratio=share(resume.repeated.amount, repeated) if repeated else None,
            points=tuple(self._point(point) for point in worked.points),
        )

    def kinds(self, worked: Sequence[Worked]) -> list[KindView]:
        return [view for kind in Kind if (view := self._kind(kind, worked)) is not None]

    def _arm(self, arm: Arm, worked: Worked) -> ArmView:
        seen = worked.seen[arm]
        more = self._prices.spend(seen.rows) - self.clean_spend
        found, expected = extra(seen, self._clean), trace.expected_repeats(arm, worked.points, self._clean.timelines)
        return ArmView(
            arm=arm,
            repeated=spend_view(more),
            share=share(more.amount, self.clean_spend.amount),
            expected=spend_view(self._costing(expected)),
            unexplained=(found - expected).total() + (expected - found).total(),
            refunds_otherwise=otherwise(seen, self._clean, "refunds"),
            notices_otherwise=otherwise(seen, self._clean, "notifications"),
            cases_otherwise=otherwise(seen, self._clean, "cases"),
            seconds=round(seen.seconds, 1),
        )

    def _kind(self, kind: Kind, worked: Sequence[Worked]) -> KindView | None:
        """What was repeated by the tasks that were killed so, each request at its price of the clean run."""
        timelines = self._clean.timelines
        kills, clean, sums = 0, Spend(), dict.fromkeys(Arm, Spend())
        for attempt in worked:
            jobs = [point.job for point in attempt.points if point.kind(timelines[point.job]) is kind]
            own = trace.all_requests(jobs, timelines)
            kills, clean = kills + len(jobs), clean + self._costing(own)
            for arm, seen in attempt.seen.items():
                more = extra(seen, self._clean)
                sums[arm] += self._costing(trace.Digests({name: times for name, times in more.items() if name in own}))
        if not kills:
            return None
        restart, resume = sums[Arm.RESTART].amount, sums[Arm.RESUME].amount
        return KindView(kind=kind, kills=kills, clean=clean.amount, restart=restart, resume=resume)

    def _costing(self, wanted: Digests) -> Spend:
        return costing(wanted, self._cost)

    def _point(self, point: Point) -> PointView:
        timeline = self._clean.timelines[point.job]
        request = timeline[point.position]
        return PointView(
            task=point.job,
            moment=round(point.moment, 4),
            request=request.target,
            number=request.number,
            kind=point.kind(timeline),
        )
