"""The verdict on a demo run: every difference is found and named."""

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


def expect(outcome: Outcome | None = Outcome.REFUNDED, refund: Refund | None = REFUND, **changes: Any) -> Expectation:
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


def ended_view(outcome: Outcome = Outcome.REFUNDED, refund: Refund | None = REFUND, **changes: Any) -> TaskView:
    given: dict[str, Any] = {"outcome": outcome, "category": Category.DAMAGED, "refund": refund} | changes
    return view(TaskStatus.COMPLETED, result=TaskResult(**given))


def waiting_view(refund: Refund | None = REFUND, category: Category | None = Category.DAMAGED) -> TaskView:
    return view(TaskStatus.WAITING, waiting_for="above_limit", proposed_refund=refund, category=category)


def row(ticket_id: str = "T-1", **changes: Any) -> BookedRefund:
    given = {"tenant": "acme", "ticket_id": ticket_id, "refund_id": "RF-1", **REFUND.model_dump()}
    return BookedRefund.model_validate(given | changes)


def differences(expectation: Expectation, view: TaskView, *rows: BookedRefund) -> list[str]:
    return [d.removeprefix(f"{TASK}: ") for d in judge({TASK: expectation}, {TASK: view}, rows).differences]


def test_a_run_that_is_right_has_no_difference() -> None:
    assert judge({TASK: expect()}, {TASK: ended_view()}, [row()]) == Verdict(
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
        (expect(), ended_view(), [row(), row("T-2", amount="99.00")]),  # another ticket's refund
        (expect(), ended_view(), [row(amount="12.3")]),
        (expect(Outcome.DECLINED, None), ended_view(Outcome.DECLINED, None), []),
        (expect(None), waiting_view(), []),
        (expect(None, None), waiting_view(None), []),
        (expect(clear=False), ended_view(category=Category.COMPLAINT), [row()]),
        # The waiting task was meanwhile decided by a person, or has expired.
        (expect(None), ended_view(decided_by="ann"), [row()]),
        (expect(None), ended_view(refund=OTHER, decided_by="ann"), [row(order_id="O-2")]),
        (expect(None), ended_view(Outcome.REJECTED, None, decided_by="ann"), []),
        (expect(None), ended_view(Outcome.EXPIRED, None), []),
    ],
)
def test_an_expected_result_is_no_difference(
    expectation: Expectation, view: TaskView, rows: list[BookedRefund]
) -> None:
    assert differences(expectation, view, *rows) == []


@pytest.mark.parametrize(
    ("expectation", "view", "rows", "named"),
    [
        (expect(), ended_view(), [], "the books must hold 12.30 EUR for order O-1, they hold no refund"),
        (
            expect(),
            ended_view(),
            [row(), row()],
            f"the books must hold {DUE}, they hold {DUE} and {DUE}",
        ),
        (
            expect(),
            ended_view(),
            [row(amount="12.31")],
            "the books must hold 12.30 EUR for order O-1, they hold 12.31 EUR for order O-1",
        ),
        (
            expect(),
            ended_view(),
            [row(currency="USD")],
            "the books must hold 12.30 EUR for order O-1, they hold 12.30 USD for order O-1",
        ),
        (
            expect(),
            ended_view(),
            [row(order_id="O-2")],
            "the books must hold 12.30 EUR for order O-1, they hold 12.30 EUR for order O-2",
        ),
        (expect(), waiting_view(), [row()], "must be refunded, is waiting (above_limit)"),
        (expect(), view(TaskStatus.FAILED, error="E"), [row()], "must be refunded, is failed (E)"),
        (expect(), view(TaskStatus.RUNNING), [row()], "must be refunded, is running"),
        (expect(None), ended_view(), [], "must be waiting, is refunded"),
        (expect(None), ended_view(Outcome.REFUNDED), [row()], "must be waiting, is refunded"),
        (
            expect(None),
            waiting_view(),
            [row()],
            "the books must hold no refund, they hold 12.30 EUR for order O-1",
        ),
        (
            expect(None),
            waiting_view(OTHER),
            [],
            "must propose 12.30 EUR for order O-1, proposes 12.30 EUR for order O-2",
        ),
        (expect(None), waiting_view(None), [], "must propose 12.30 EUR for order O-1, proposes no refund"),
        (
            expect(None),
            ended_view(Outcome.REJECTED, None, decided_by="ann"),
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
    verdict = judge({TASK: expect(None)}, {TASK: waiting_view(category=category)}, [])
    assert (verdict.clear, verdict.clear_right) == counts


def test_a_wrong_category_is_named_and_is_no_difference() -> None:
    verdict = judge({TASK: expect()}, {TASK: ended_view(category=Category.COMPLAINT)}, [row()])
    assert (verdict.clear, verdict.clear_right, verdict.differences) == (1, 0, ())
    assert verdict.misclassified == (f"{TASK}: is damaged, was classified as complaint",)
    assert not verdict.good


@pytest.mark.parametrize(("wrong", "good"), [(0, True), (5, True), (6, False)])
def test_five_in_a_hundred_may_be_misclassified(wrong: int, good: bool) -> None:
    right, mistaken = ended_view(Outcome.ANSWERED, None), ended_view(Outcome.ANSWERED, None, category=Category.FRAUD)
    names = [f"acme:T-{number}" for number in range(100)]
    views = {name: mistaken if number < wrong else right for number, name in enumerate(names)}
    assert judge(dict.fromkeys(names, expect(Outcome.ANSWERED, None)), views, []).good is good


def test_one_difference_is_one_too_many() -> None:
    assert not judge({TASK: expect()}, {TASK: ended_view()}, []).good
    assert judge({TASK: expect()}, {TASK: ended_view()}, [row()]).good
