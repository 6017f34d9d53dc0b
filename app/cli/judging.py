"""What a demo run came to, against what a good agent must do and what the books hold. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from app.domain.models import Category, Currency, Money, Outcome, Reference, Refund, TaskStatus, TaskView, task_id

if TYPE_CHECKING:
    from sandbox.data import Expectation


class Booked(BaseModel):
    """One row of the refund book, as far as it is compared."""

    tenant: str
    ticket_id: str
    order_id: Reference
    amount: Money
    currency: Currency

    @property
    def refund(self) -> Refund:
        """The money of the row."""
        return Refund(order_id=self.order_id, amount=self.amount, currency=self.currency)


class RefundBook(BaseModel):
    """The answer of the books."""

    rows: tuple[Booked, ...]


# A category alone moves no money, and no model is never wrong: a share is asked for, not each one.
LEAST_RIGHT_PERCENT = 95


@dataclass(frozen=True)
class Verdict:
    """How a run compares. `misclassified` and `differences` are sentences that begin with the task's id."""

    tally: Mapping[tuple[str, str], int]  # tasks by (outcome or state, tenant)
    clear: int  # clear tickets whose category is known
    clear_right: int
    refunds_expected: int
    refunds_booked: int
    misclassified: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Every task and booking is as it must be, and enough clear tickets were understood."""
        return not self.differences and 100 * self.clear_right >= LEAST_RIGHT_PERCENT * self.clear


def judge(expected: Mapping[str, Expectation], views: Mapping[str, TaskView], rows: Iterable[Booked]) -> Verdict:
    """Compares each sample's task and bookings; rows of other tickets are none of its business."""
    booked: defaultdict[str, list[Refund]] = defaultdict(list)
    for row in rows:
        booked[task_id(row.tenant, row.ticket_id)].append(row.refund)
    known = [(views[name], want) for name, want in expected.items() if want.clear and _category(views[name])]
    differences: list[str] = []
    for name, want in expected.items():
        found = [*_task(want, views[name]), *_bookings(_due(want, views[name]), booked[name])]
        differences += [f"{name}: {difference}" for difference in found]
    return Verdict(
        tally=Counter((label(views[name]), views[name].tenant) for name in expected),
        clear=len(known),
        clear_right=sum(_category(view) is want.category for view, want in known),
        refunds_expected=sum(_due(want, views[name]) is not None for name, want in expected.items()),
        refunds_booked=sum(len(booked[name]) for name in expected),
        misclassified=tuple(
            f"{view.task_id}: is {want.category.value}, was taken for {_category(view)}"
            for view, want in known
            if _category(view) is not want.category
        ),
        differences=tuple(differences),
    )


def label(view: TaskView) -> str:
    """The outcome of a task that has one, else its state."""
    return view.result.outcome.value if view.result else view.status.value


def _category(view: TaskView) -> Category | None:
    """What the ticket was taken for; a task may be at rest before it is known."""
    return (view.result.category if view.result else None) or view.category


def _decided(want: Expectation, view: TaskView) -> bool:
    """Whether a person, or the clock, has meanwhile ended what was to wait."""
    if want.status is not TaskStatus.WAITING or view.result is None:
        return False
    return view.result.decided_by is not None or view.result.outcome is Outcome.EXPIRED


def _due(want: Expectation, view: TaskView) -> Refund | None:
    """The refund that the books must hold."""
    if _decided(want, view) and view.result:
        return view.result.refund if view.result.outcome is Outcome.REFUNDED else None
    return want.refund if want.outcome is Outcome.REFUNDED else None


def _task(want: Expectation, view: TaskView) -> list[str]:
    found = []
    due = want.outcome.value if want.outcome else want.status.value
    if label(view) != due and not _decided(want, view):
        why = view.waiting_for or view.error
        found.append(f"must be {due}, is {label(view)}" + (f" ({why})" if why else ""))
    elif want.refund and view.status is TaskStatus.WAITING and view.proposed_refund != want.refund:
        found.append(f"must propose {_money(want.refund)}, proposes {_money(view.proposed_refund)}")
    return found


def _bookings(due: Refund | None, booked: list[Refund]) -> list[str]:
    if booked == ([due] if due else []):
        return []
    listed = " and ".join(_money(refund) for refund in booked) or _money(None)
    return [f"the books must hold {_money(due)}, they hold {listed}"]


def _money(refund: Refund | None) -> str:
    return f"{refund.amount} {refund.currency} for {refund.order_id}" if refund else "no refund"
