"""Computes the result from the bills: what each arm paid twice, and what its trace and the theory predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lab.crash_cost import trace
from lab.crash_cost.jobs import Load
from lab.crash_cost.spend import Prices, Row, Spend, digests, total_cost
from lab.crash_cost.trace import Arm, Digests, Kind, Point, Timeline
from lab.crash_cost.views import ArmView, KindView, LoadView, PointView, TraceView, ratio, share, spend_view
from runtime.errors import UserError

# For each book, the number of entries with equal facts.
Books = dict[str, Counter[tuple[Any, ...]]]


@dataclass(frozen=True)
class CleanRun:
    """A run without kills: the requests of each job by name, in order, with bill and books."""

    timelines: dict[str, Timeline]
    rows: tuple[Row, ...]
    books: Books


@dataclass(frozen=True)
class KilledRun:
    """A run of one arm with the kills of a trace: bill, books and duration."""

    arm: Arm
    rows: tuple[Row, ...]
    books: Books
    seconds: float


def count_book_differences(run: KilledRun, clean: CleanRun, book: str) -> int:
    """Entries of a book that the clean run does not have, plus entries of the clean run that are missing."""
    mine, theirs = run.books[book], clean.books[book]
    return (mine - theirs).total() + (theirs - mine).total()


def repeated_requests(run: KilledRun, clean: CleanRun) -> Digests:
    """The requests that are on the bill more often than in the clean run. Raises UserError if one is missing."""
    missing = digests(clean.rows) - digests(run.rows)
    if missing:
        raise UserError(f"{run.arm.words}: {missing.total()} model calls of the clean run are not on the bill.")
    return digests(run.rows) - digests(clean.rows)


_HUNDRED = Decimal(100)


@dataclass(frozen=True)
class TraceRuns:
    """The runs of one trace, by arm."""

    rate: float
    points: tuple[Point, ...]
    by_arm: Mapping[Arm, KilledRun]


def judge(load: Load, clean: CleanRun, runs: Sequence[TraceRuns], prices: Prices) -> LoadView:
    """The result for one load."""
    judge_ = _Judge(clean, prices)
    traces = tuple(judge_.trace(trace_runs) for trace_runs in runs)
    model_calls = Decimal(judge_.clean_spend.requests) / len(clean.timelines)
    return LoadView(
        name=load.name,
        title=load.title,
        tasks=len(clean.timelines),
        model_calls=share(model_calls, Decimal(1)),
        clean=spend_view(judge_.clean_spend),
        traces=traces,
        kinds=tuple(judge_.kinds(runs)),
        ratio=ratio(traces),
        expected_ratio=share(Decimal(2), model_calls + 1),
    )


class _Judge:
    def __init__(self, clean: CleanRun, prices: Prices) -> None:
        self._clean = clean
        self._prices = prices
        self._cost = prices.by_digest(clean.rows)
        self.clean_spend = prices.spend(clean.rows)

    def trace(self, runs: TraceRuns) -> TraceView:
        killed = [point.job for point in runs.points]
        rate = Decimal(len(killed)) / len(self._clean.timelines)
        restart, resume = (self._arm(arm, runs) for arm in (Arm.RESTART, Arm.RESUME))
        repeated = restart.repeated.amount
        return TraceView(
            rate=share(rate, Decimal(1)),
            kills=len(killed),
            upper_bound=rate * self.clean_spend.amount,
            ceiling=self._total_cost(trace.all_requests(killed, self._clean.timelines)).amount,
            restart=restart,
            resume=resume,
            ratio=share(resume.repeated.amount, repeated) if repeated else None,
            points=tuple(self._point(point) for point in runs.points),
        )

    def kinds(self, runs: Sequence[TraceRuns]) -> list[KindView]:
        return [view for kind in Kind if (view := self._kind(kind, runs)) is not None]

    def _arm(self, arm: Arm, runs: TraceRuns) -> ArmView:
        run = runs.by_arm[arm]
        more = self._prices.spend(run.rows) - self.clean_spend
        repeated = repeated_requests(run, self._clean)
        expected = trace.expected_repeats(arm, runs.points, self._clean.timelines)
        return ArmView(
            arm=arm,
            repeated=spend_view(more),
            share=share(more.amount, self.clean_spend.amount),
            expected=spend_view(self._total_cost(expected)),
            unexplained=(repeated - expected).total() + (expected - repeated).total(),
            refunds_otherwise=count_book_differences(run, self._clean, "refunds"),
            notices_otherwise=count_book_differences(run, self._clean, "notifications"),
            cases_otherwise=count_book_differences(run, self._clean, "cases"),
            seconds=round(run.seconds, 1),
        )

    def _kind(self, kind: Kind, runs: Sequence[TraceRuns]) -> KindView | None:
        """What the tasks killed in this way repeated, each request at its price in the clean run."""
        timelines = self._clean.timelines
        kills, clean, sums = 0, Spend(), dict.fromkeys(Arm, Spend())
        for trace_runs in runs:
            jobs = [point.job for point in trace_runs.points if point.kind(timelines[point.job]) is kind]
            own = trace.all_requests(jobs, timelines)
            kills, clean = kills + len(jobs), clean + self._total_cost(own)
            for arm, run in trace_runs.by_arm.items():
                more = repeated_requests(run, self._clean)
                sums[arm] += self._total_cost(
                    trace.Digests({name: times for name, times in more.items() if name in own})
                )
        if not kills:
            return None
        restart, resume = sums[Arm.RESTART].amount, sums[Arm.RESUME].amount
        return KindView(kind=kind, kills=kills, clean=clean.amount, restart=restart, resume=resume)

    def _total_cost(self, requests: Digests) -> Spend:
        return total_cost(requests, self._cost)

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
