"""Timelines, bills and results, small enough to be reckoned by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from app.pricing import book
from lab.crash_cost.jobs import Load
from lab.crash_cost.judging import Books, Clean, Seen, Worked, judged
from lab.crash_cost.spend import Prices
from lab.crash_cost.trace import MODEL, Arm, Point, Request, Timeline
from lab.crash_cost.views import Assumptions, CrashCostView, LoadView
from tests.paths import ROOT

PRICES = ROOT / "config" / "prices.yaml"
NOTHING: Books = {book_: Counter() for book_ in ("refunds", "notifications", "cases")}


def timeline(name: str, calls: int = 3) -> Timeline:
    """So many model calls with an account in between, then a notice."""
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
    """By the project's price file."""
    return Prices(book.load(PRICES), "conversation.openai")


def clean(*names: str, calls: int = 3) -> Clean:
    """Tasks without a kill."""
    timelines = {name: timeline(name, calls) for name in names}
    rows = [row(request.digest) for each in timelines.values() for request in each if request.paid]
    return Clean(timelines, tuple(rows), NOTHING)


def seen(arm: Arm, clean: Clean, repeated: Sequence[str]) -> Seen:
    """A run that repeated these requests."""
    return Seen(arm, (*clean.rows, *[row(digest) for digest in repeated]), NOTHING, 1.0)


def load_view(
    points: Sequence[Point], restarted: Sequence[str], resumed: Sequence[str], clean: Clean, rates: int = 1
) -> LoadView:
    """The result of one trace, as often as `rates` says."""
    both = {Arm.RESTART: seen(Arm.RESTART, clean, restarted), Arm.RESUME: seen(Arm.RESUME, clean, resumed)}
    load = Load("tickets", "refund tickets", 0, len(clean.timelines), (50,))
    return judged(load, clean, [Worked(50, tuple(points), both)] * rates, prices())


def result(*loads: LoadView) -> CrashCostView:
    """A whole result."""
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
