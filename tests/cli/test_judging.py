"""The judgement of a demo run: whatever is not as it must be is found, and named."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli.demo import BookedRefund, Verdict, judge
from app.domain.models import Category, Outcome, Refund, TaskResult, TaskStatus, TaskView
from sandbox.data import Expectation

TASK = "acme:T-1"
REFUND = Refund.model_validate({"order_id": "O-1", "amount": "12.30", "currency": "EUR"})
OTHER = REFUND.model_copy(update={"order_id": "O-2"})

DUE = "12.30 EUR for order O-1"


def want(outcome: Outcome | None = Outcome.REFUNDED, refund: Refund | None = REFUND, **changes: Any) -> Expectation:
    given = {
        "task_id": TASK,
        "kind": "clear",
        "language": "en",
        "clear": True,
        "category": Category.DAMAGED,
        "status": TaskStatus.COMPLETED if outcome else TaskStatus.WAITING,
        "outcome": outcome,
        "refund": refund,
    }
    return Expectation.model_validate(given | changes)


def view(status: TaskStatus, **changes: Any) -> TaskView:
    return TaskView(task_id=TASK, tenant="acme", ticket_id="T-1", status=status, created_at="2026-01-01", **changes)


def done(outcome: Outcome = Outcome.REFUNDED, refund: Refund | None = REFUND, **changes: Any) -> TaskView:
    given: dict[str, Any] = {"outcome": outcome, "category": Category.DAMAGED, "refund": refund} | changes
    return view(TaskStatus.COMPLETED, result=TaskResult(**given))


def waits(refund: Refund | None = REFUND, category: Category | None = Category.DAMAGED) -> TaskView:
    return view(TaskStatus.WAITING, waiting_for="above_limit", proposed_refund=refund, category=category)


def row(ticket_id: str = "T-1", **changes: Any) -> BookedRefund:
    given = {"tenant": "acme", "ticket_id": ticket_id, "refund_id": "RF-1", **REFUND.model_dump()}
    return BookedRefund.model_validate(given | changes)


def differences(expectation: Expectation, view: TaskView, *rows: BookedRefund) -> list[str]:
    return [d.removeprefix(f"{TASK}: ") for d in judge({TASK: expectation}, {TASK: view}, rows).differences]


def test_a_run_that_is_right_has_no_difference() -> None:
    assert judge({TASK: want()}, {TASK: done()}, [row()]) == Verdict(
        tally={("refunded", "acme"): 1},
        clear=1,
        clear_right=1,
        refunds_expected=1,
        refunds_booked=1,
        misclassified=(),
        differences=(),
    )


@pytest.mark.parametrize(
    ("expectation", "view", "rows"),
    [
        (want(), done(), [row(), row("T-2", amount="99.00")]),  # another ticket's refund
        (want(), done(), [row(amount="12.3")]),
        (want(Outcome.DECLINED, None), done(Outcome.DECLINED, None), []),
        (want(None), waits(), []),
        (want(None, None), waits(None), []),
        (want(clear=False), done(category=Category.COMPLAINT), [row()]),
        # A person, or the clock, has ended meanwhile what was to wait.
        (want(None), done(decided_by="ann"), [row()]),
        (want(None), done(refund=OTHER, decided_by="ann"), [row(order_id="O-2")]),
        (want(None), done(Outcome.REJECTED, None, decided_by="ann"), []),
        (want(None), done(Outcome.EXPIRED, None), []),
    ],
)
def test_what_is_right_is_not_called_a_difference(
    expectation: Expectation, view: TaskView, rows: list[BookedRefund]
) -> None:
    assert differences(expectation, view, *rows) == []


@pytest.mark.parametrize(
    ("expectation", "view", "rows", "named"),
    [
        (want(), done(), [], "the books must hold 12.30 EUR for order O-1, they hold no refund"),
        (
            want(),
            done(),
            [row(), row()],
            f"the books must hold {DUE}, they hold {DUE} and {DUE}",
        ),
        (
            want(),
            done(),
            [row(amount="12.31")],
            "the books must hold 12.30 EUR for order O-1, they hold 12.31 EUR for order O-1",
        ),
        (
            want(),
            done(),
            [row(currency="USD")],
            "the books must hold 12.30 EUR for order O-1, they hold 12.30 USD for order O-1",
        ),
        (
            want(),
            done(),
            [row(order_id="O-2")],
            "the books must hold 12.30 EUR for order O-1, they hold 12.30 EUR for order O-2",
        ),
        (want(), waits(), [row()], "must be refunded, is waiting (above_limit)"),
        (want(), view(TaskStatus.FAILED, error="E"), [row()], "must be refunded, is failed (E)"),
        (want(), view(TaskStatus.RUNNING), [row()], "must be refunded, is running"),
        (want(None), done(), [], "must be waiting, is refunded"),
        (want(None), done(Outcome.REFUNDED), [row()], "must be waiting, is refunded"),
        (want(None), waits(), [row()], "the books must hold no refund, they hold 12.30 EUR for order O-1"),
        (want(None), waits(OTHER), [], "must propose 12.30 EUR for order O-1, proposes 12.30 EUR for order O-2"),
        (want(None), waits(None), [], "must propose 12.30 EUR for order O-1, proposes no refund"),
        (
            want(None),
            done(Outcome.REJECTED, None, decided_by="ann"),
            [row()],
            "the books must hold no refund, they hold 12.30 EUR for order O-1",
        ),
    ],
)
def test_each_difference_is_named(
    expectation: Expectation, view: TaskView, rows: list[BookedRefund], named: str
) -> None:
    assert named in differences(expectation, view, *rows)


@pytest.mark.parametrize(("category", "counts"), [(None, (0, 0)), (Category.DAMAGED, (1, 1)), (Category.FRAUD, (1, 0))])
def test_a_waiting_tasks_category_counts_once_it_is_known(category: Category | None, counts: tuple[int, int]) -> None:
    verdict = judge({TASK: want(None)}, {TASK: waits(category=category)}, [])
    assert (verdict.clear, verdict.clear_right) == counts


def test_a_wrong_category_is_named_and_is_no_difference() -> None:
    verdict = judge({TASK: want()}, {TASK: done(category=Category.COMPLAINT)}, [row()])
    assert (verdict.clear, verdict.clear_right, verdict.differences) == (1, 0, ())
    assert verdict.misclassified == (f"{TASK}: is damaged, was classified as complaint",)
    assert not verdict.good


@pytest.mark.parametrize(("wrong", "good"), [(0, True), (5, True), (6, False)])
def test_five_in_a_hundred_may_be_misunderstood(wrong: int, good: bool) -> None:
    right, mistaken = done(Outcome.ANSWERED, None), done(Outcome.ANSWERED, None, category=Category.FRAUD)
    names = [f"acme:T-{number}" for number in range(100)]
    views = {name: mistaken if number < wrong else right for number, name in enumerate(names)}
    assert judge(dict.fromkeys(names, want(Outcome.ANSWERED, None)), views, []).good is good


def test_one_difference_is_one_too_many() -> None:
    assert not judge({TASK: want()}, {TASK: done()}, []).good
    assert judge({TASK: want()}, {TASK: done()}, [row()]).good
