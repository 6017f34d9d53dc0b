"""The result computed from bills: shares, requests that the trace explains, and kinds of kills."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from lab.crash_cost.jobs import Load
from lab.crash_cost.judging import TraceRuns, judge, repeated_requests
from lab.crash_cost.table import remarks
from lab.crash_cost.trace import Arm, Kind, Point
from runtime.errors import UserError
from tests.lab.crash_cost.kit import clean_run, killed_run, load_view, prices, result

TWO = clean_run("a", "b")
# Kills during the second model call of a and during the notice of b.
POINTS = (Point("a", 0.5, 2, False), Point("b", 0.99, 4, False))
RESTARTED, RESUMED = ["a-1", "a-2", "b-1", "b-2", "b-3"], ["a-2"]


def test_shares_bounds_and_ratio() -> None:
    view = load_view(POINTS, RESTARTED, RESUMED, TWO)
    (trace,) = view.traces
    assert (view.model_calls, view.clean.requests, view.clean.amount) == (Decimal(3), 6, Decimal("0.00336"))
    assert (trace.rate, trace.kills) == (Decimal(1), 2)
    assert trace.upper_bound == trace.ceiling == view.clean.amount
    assert (trace.restart.repeated.requests, trace.restart.share) == (5, Decimal("0.8333"))
    assert (trace.resume.repeated.requests, trace.resume.share) == (1, Decimal("0.1667"))
    assert (trace.ratio, view.ratio, view.expected_ratio) == (Decimal("0.2"), Decimal("0.2"), Decimal("0.5"))
    assert trace.restart.expected == trace.restart.repeated
    assert (trace.restart.unexplained, trace.resume.unexplained) == (0, 0)


def test_a_kind_counts_what_its_own_tasks_repeated() -> None:
    model, system = load_view(POINTS, RESTARTED, RESUMED, TWO).kinds
    call_cost = Decimal("0.00056")
    assert (model.kind, model.kills, model.clean) == (Kind.MODEL_CALL, 1, 3 * call_cost)
    assert (model.restart, model.resume) == (2 * call_cost, call_cost)
    assert (system.kind, system.restart, system.resume) == (Kind.SYSTEM_CALL, 3 * call_cost, Decimal(0))


@pytest.mark.parametrize(
    ("repeated", "unexplained"), [(["a-2", "a-1"], 1), ([], 1), (["a-1"], 2), (["a-2", "a-2", "new"], 2)]
)
def test_a_request_that_the_trace_does_not_explain_is_counted(repeated: list[str], unexplained: int) -> None:
    view = load_view(POINTS, RESTARTED, repeated, TWO)
    assert view.traces[0].resume.unexplained == unexplained
    assert any(
        f"Resumed: {unexplained} requests that the traces do not explain" in line for line in remarks(result(view))
    )


def test_without_repeats_there_is_no_ratio() -> None:
    view = load_view([Point("a", 0.0, 0, True)], [], [], TWO)
    assert view.traces[0].ratio is view.ratio is None


def test_a_missing_request_is_an_error() -> None:
    short = replace(killed_run(Arm.RESUME, TWO, []), rows=TWO.rows[1:])
    with pytest.raises(UserError, match="1 model calls of the clean run are not on the bill"):
        repeated_requests(short, TWO)


def test_differences_of_the_books_are_counted_and_reported() -> None:
    both = {Arm.RESTART: killed_run(Arm.RESTART, TWO, RESTARTED), Arm.RESUME: killed_run(Arm.RESUME, TWO, RESUMED)}
    both[Arm.RESTART] = replace(both[Arm.RESTART], books=TWO.books | {"notifications": Counter([("a",)])})
    view = judge(Load("t", "t", 0, 2, (100,)), TWO, [TraceRuns(100, POINTS, both)], prices())
    restart = view.traces[0].restart
    assert (restart.notices_otherwise, restart.refunds_otherwise, restart.cases_otherwise) == (1, 0, 0)
    lines = remarks(result(view))
    assert any("Restarted: 1 notices and 0 refunds differ" in line for line in lines)
    assert any("no completed step was paid again" in line for line in lines)


def test_the_remarks_judge_the_goal() -> None:
    assert (
        "resume repeats 20.0 % of what restart does, more than a tenth"
        in remarks(result(load_view(POINTS, RESTARTED, RESUMED, TWO)))[0]
    )
