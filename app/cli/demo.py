"""`refund-agent demo`: works the sample tickets and compares the result with the expected one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from app.cli.client import SYSTEMS_URL, AsJson, SystemsUrl, Token, Url, connect
from app.cli.faults import AgentAway, NotUnderstood
from app.cli.screen import Wide, complain, figures, say, show_json, show_table
from app.cli.submit import AnswerKind, Pace, follow_with_meter, send_with_meter
from app.cli.ticket_files import TicketLine
from app.domain import formatting
from app.domain.errors import RefundAgentError
from app.domain.models import (
    Category,
    Currency,
    Frozen,
    Money,
    Outcome,
    Reference,
    Refund,
    TaskStatus,
    TaskView,
    task_id,
)

if TYPE_CHECKING:
    from sandbox.data import Expectation


# The comparison of the tasks and the booked refunds with the expectations.


class BookedRefund(BaseModel):
    """The compared fields of one row of the refund book."""

    tenant: str
    ticket_id: str
    order_id: Reference
    amount: Money
    currency: Currency

    @property
    def refund(self) -> Refund:
        """The row's order, amount and currency."""
        return Refund(order_id=self.order_id, amount=self.amount, currency=self.currency)


class RefundBook(BaseModel):
    """The refund book as the sandbox's refund system returns it."""

    rows: tuple[BookedRefund, ...]


# No model is always right, and a wrong category moves no money: so only a share of the tickets must be right.
LEAST_RIGHT_PERCENT = 95


@dataclass(frozen=True)
class Verdict:
    """The result of the comparison. `misclassified` and `differences` are sentences that begin with the task's id."""

    tally: Mapping[tuple[str, str], int]  # tasks by (outcome or state, tenant)
    clear: int  # clear tickets whose category is known
    clear_right: int
    refunds_expected: int
    refunds_booked: int
    misclassified: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether every task and booked refund is as expected, and enough clear tickets are classified correctly."""
        return not self.differences and 100 * self.clear_right >= LEAST_RIGHT_PERCENT * self.clear


class DemoView(Frozen):
    """The JSON form of the verdict. `outcomes`: outcome or state -> tenant -> number of tasks."""

    outcomes: dict[str, dict[str, int]]
    clear_tickets: int
    clear_tickets_right: int
    misclassified: tuple[str, ...]
    refunds_due: int
    refunds_booked: int
    differences: tuple[str, ...]


def judge(expected: Mapping[str, Expectation], views: Mapping[str, TaskView], rows: Iterable[BookedRefund]) -> Verdict:
    """Compares each sample's task and booked refunds with its expectation. Ignores rows of other tickets."""
    booked: defaultdict[str, list[Refund]] = defaultdict(list)
    for row in rows:
        booked[task_id(row.tenant, row.ticket_id)].append(row.refund)
    classified = [(views[name], want) for name, want in expected.items() if want.clear and _category(views[name])]
    differences: list[str] = []
    for name, want in expected.items():
        due = _due_refund(want, views[name])
        sentences = [*_task_differences(want, views[name]), *_booking_differences(due, booked[name])]
        differences += [f"{name}: {difference}" for difference in sentences]
    return Verdict(
        tally=Counter((label(views[name]), views[name].tenant) for name in expected),
        clear=len(classified),
        clear_right=sum(_category(view) is want.category for view, want in classified),
        refunds_expected=sum(_due_refund(want, views[name]) is not None for name, want in expected.items()),
        refunds_booked=sum(len(booked[name]) for name in expected),
        misclassified=tuple(
            f"{view.task_id}: is {want.category.value}, was classified as {_category(view)}"
            for view, want in classified
            if _category(view) is not want.category
        ),
        differences=tuple(differences),
    )


def label(view: TaskView) -> str:
    """The task's outcome if it has one, else its state."""
    return view.result.outcome.value if view.result else view.status.value


def _category(view: TaskView) -> Category | None:
    """The ticket's category; None for a task that came to rest before it was classified."""
    return (view.result.category if view.result else None) or view.category


def _is_decided(want: Expectation, view: TaskView) -> bool:
    """Whether a task that is expected to wait was meanwhile decided by a person, or has expired."""
    if want.status is not TaskStatus.WAITING or view.result is None:
        return False
    return view.result.decided_by is not None or view.result.outcome is Outcome.EXPIRED


def _due_refund(want: Expectation, view: TaskView) -> Refund | None:
    """The refund that the books must hold; None for no refund."""
    if _is_decided(want, view) and view.result:
        return view.result.refund if view.result.outcome is Outcome.REFUNDED else None
    return want.refund if want.outcome is Outcome.REFUNDED else None


def _task_differences(want: Expectation, view: TaskView) -> list[str]:
    sentences = []
    due = want.outcome.value if want.outcome else want.status.value
    if label(view) != due and not _is_decided(want, view):
        why = view.waiting_for or view.error
        sentences.append(f"must be {due}, is {label(view)}" + (f" ({why})" if why else ""))
    elif want.refund and view.status is TaskStatus.WAITING and view.proposed_refund != want.refund:
        sentences.append(f"must propose {_refund_text(want.refund)}, proposes {_refund_text(view.proposed_refund)}")
    return sentences


def _booking_differences(due: Refund | None, booked: list[Refund]) -> list[str]:
    if booked == ([due] if due else []):
        return []
    listed = " and ".join(_refund_text(refund) for refund in booked) or _refund_text(None)
    return [f"the books must hold {_refund_text(due)}, they hold {listed}"]


def _refund_text(refund: Refund | None) -> str:
    return formatting.refund(refund) if refund else "no refund"


class SampleRefused(RefundAgentError):
    """The agent did not accept a sample ticket."""

    code = "sample_refused"


def demo(
    timeout: Annotated[float, typer.Option(min=0, help="Most seconds to wait for the tasks.")] = 600,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Concurrent requests.")] = 8,
    systems_url: SystemsUrl = SYSTEMS_URL,
    url: Url = None,
    token: Token = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Works the sample tickets; exit code 1 if a task or a booked refund is not as expected, or if fewer than 95 of 100
    clear tickets are classified correctly."""
    from sandbox.data import load_expected, load_tickets

    lines = [TicketLine(number, ticket) for number, ticket in enumerate(load_tickets(), start=1)]
    with connect(url, token) as client:
        receipts = send_with_meter(lines, client.submit, Pace(None, concurrency), len(lines))
        refused = [receipt for receipt in receipts if receipt.kind in (AnswerKind.CONFLICT, AnswerKind.REFUSED)]
        if refused:
            raise SampleRefused(
                f"{len(refused)} of {len(lines)} samples were not accepted, the first is {refused[0].task_id}; "
                "use a token for every tenant, and a state folder without other tickets of these ids"
            )
        ids = [receipt.task_id for receipt in receipts]
        rested, running = follow_with_meter(ids, client.get, timeout)
        views = {view.task_id: view for view in [*rested, *map(client.get, running)]}
    verdict = judge(load_expected(), views, _refund_book(systems_url))
    show_json(_view(verdict)) if as_json else _show(verdict)
    if not verdict.good:
        raise typer.Exit(1)


def _refund_book(systems_url: str) -> tuple[BookedRefund, ...]:
    import httpx
    from pydantic import ValidationError

    from app.cli import client as http

    address = f"{systems_url.rstrip('/')}/books/refunds"
    try:
        answer = http.get(address, 30)
        return RefundBook.model_validate_json(answer.raise_for_status().content).rows
    except httpx.RequestError as error:
        raise AgentAway(
            f"the refund book does not answer at {address} ({type(error).__name__}); start the sandbox with "
            "`make up`, or name another with --systems-url"
        ) from None
    except (httpx.HTTPStatusError, ValidationError):
        raise NotUnderstood(f"{address} is not a refund book of the sandbox; check --systems-url") from None


def _show(verdict: Verdict) -> None:
    tenants = sorted({tenant for _, tenant in verdict.tally})
    order = [item.value for item in (*Outcome, *TaskStatus)]
    rows = []
    for name in (name for name in order if any(label == name for label, _ in verdict.tally)):
        counts = [verdict.tally.get((name, tenant), 0) for tenant in tenants]
        rows.append((name, *(str(count or "") for count in counts), str(sum(counts))))
    sums = [sum(n for (_, of), n in verdict.tally.items() if of == tenant) for tenant in tenants]
    rows.append(("all", *map(str, sums), str(sum(sums))))
    show_table(["outcome", *figures(*tenants, "all")], rows)
    say(f"classification  {verdict.clear_right} of {verdict.clear} clear tickets right{_share(verdict)}")
    say(f"refunds         {_refund_summary(verdict)}")
    waiting = sum(count for (name, _), count in verdict.tally.items() if name == TaskStatus.WAITING.value)
    if waiting:
        say(f"for a person    {waiting} wait: `make up`, then `.venv/bin/refund-agent task list --status waiting`")
    for sentence in (*verdict.misclassified, *verdict.differences):
        complain(sentence)


def _share(verdict: Verdict) -> str:
    return f" ({100 * verdict.clear_right / verdict.clear:.1f} %)" if verdict.clear else ""


def _refund_summary(verdict: Verdict) -> str:
    wrong = sum("the books must hold" in difference for difference in verdict.differences)
    if not wrong:
        return f"{verdict.refunds_booked} booked, all exactly as expected"
    return f"{verdict.refunds_booked} booked, {verdict.refunds_expected} due; {wrong} tasks differ"


def _view(verdict: Verdict) -> DemoView:
    tally: dict[str, dict[str, int]] = {}
    for (name, tenant), count in sorted(verdict.tally.items()):
        tally.setdefault(name, {})[tenant] = count
    return DemoView(
        outcomes=tally,
        clear_tickets=verdict.clear,
        clear_tickets_right=verdict.clear_right,
        misclassified=verdict.misclassified,
        refunds_due=verdict.refunds_expected,
        refunds_booked=verdict.refunds_booked,
        differences=verdict.differences,
    )
