"""Timelines, bills and results that are small enough to be calculated by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from app.pricing import book
from lab.crash_cost.jobs import Load
from lab.crash_cost.judging import Books, CleanRun, KilledRun, TraceRuns, judge
from lab.crash_cost.spend import Prices
from lab.crash_cost.trace import MODEL, Arm, Point, Request, Timeline
from lab.crash_cost.views import Assumptions, CrashCostView, LoadView
from tests.paths import ROOT

PRICES = ROOT / "config" / "prices.yaml"
NOTHING: Books = {book_: Counter() for book_ in ("refunds", "notifications", "cases")}


def timeline(name: str, calls: int = 3) -> Timeline:
    """Model calls with an account lookup after the first, then a notice."""
    models = [Request(MODEL, number, f"{name}-{number}") for number in range(1, calls + 1)]
    return (models[0], Request("accounts", 1), *models[1:], Request("notifications", 1))


def row(digest: str, **changes: Any) -> dict[str, Any]:
    """A row of the bill: 1,000 tokens in, 100 out, which is 0.00056 USD."""
    return {
        "at": "2026-11-22T12:00:00+00:00",
        "model": "sandbox-small",
        "input_tokens": 1_000,
        "cached_tokens": 0,
        "output_tokens": 100,
        "billed": True,
        "request_digest": digest,
        **changes,
    }


def prices() -> Prices:
    """The prices of the project's price file."""
    return Prices(book.load(PRICES), "conversation.openai")


def clean_run(*names: str, calls: int = 3) -> CleanRun:
    """A run of these tasks without kills."""
    timelines = {name: timeline(name, calls) for name in names}
    rows = [row(request.digest) for requests in timelines.values() for request in requests if request.paid]
    return CleanRun(timelines, tuple(rows), NOTHING)


def killed_run(arm: Arm, clean: CleanRun, repeated: Sequence[str]) -> KilledRun:
    """A run with kills that repeated these requests."""
    return KilledRun(arm, (*clean.rows, *[row(digest) for digest in repeated]), NOTHING, 1.0)


def load_view(
    points: Sequence[Point], restarted: Sequence[str], resumed: Sequence[str], clean: CleanRun, rates: int = 1
) -> LoadView:
    """The result of a load with the same trace at `rates` rates."""
    both = {Arm.RESTART: killed_run(Arm.RESTART, clean, restarted), Arm.RESUME: killed_run(Arm.RESUME, clean, resumed)}
    load = Load("tickets", "refund tickets", 0, len(clean.timelines), (50,))
    return judge(load, clean, [TraceRuns(50, tuple(points), both)] * rates, prices())


def result(*loads: LoadView) -> CrashCostView:
    """A result with these loads."""
    return CrashCostView(
        seed=7,
        seconds=1.0,
        currency="USD",
        price_id="p",
        book_digest="d",
        machine={"machine": "a small one"},
        assumptions=Assumptions(on_the_way_seconds=0.02, model_seconds=2, system_seconds=0.1),
        loads=loads,
    )
