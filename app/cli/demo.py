"""`refund-agent demo`: works the bundled samples and holds the result against what must come of them."""

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


# What a demo run came to, against what a good agent must do and what the books hold.


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


class DemoView(Frozen):
    """The verdict for programs. `outcomes`: outcome or state -> tenant -> tasks."""

    outcomes: dict[str, dict[str, int]]
    clear_tickets: int
    clear_tickets_right: int
    misclassified: tuple[str, ...]
    refunds_due: int
    refunds_booked: int
    differences: tuple[str, ...]


def judge(expected: Mapping[str, Expectation], views: Mapping[str, TaskView], rows: Iterable[Booked]) -> Verdict:
    """Compares each sample's task and bookings; rows of other tickets are none of its business."""
    booked: defaultdict[str, list[Refund]] = defaultdict(list)
    for row in rows:
        booked[task_id(row.tenant, row.ticket_id)].append(row.refund)
    classified = [(views[name], want) for name, want in expected.items() if want.clear and _category(views[name])]
    differences: list[str] = []
    for name, want in expected.items():
        sentences = [*_task(want, views[name]), *_bookings(_due(want, views[name]), booked[name])]
        differences += [f"{name}: {difference}" for difference in sentences]
    return Verdict(
        tally=Counter((label(views[name]), views[name].tenant) for name in expected),
        clear=len(classified),
        clear_right=sum(_category(view) is want.category for view, want in classified),
        refunds_expected=sum(_due(want, views[name]) is not None for name, want in expected.items()),
        refunds_booked=sum(len(booked[name]) for name in expected),
        misclassified=tuple(
            f"{view.task_id}: is {want.category.value}, was taken for {_category(view)}"
            for view, want in classified
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
    sentences = []
    due = want.outcome.value if want.outcome else want.status.value
    if label(view) != due and not _decided(want, view):
        why = view.waiting_for or view.error
        sentences.append(f"must be {due}, is {label(view)}" + (f" ({why})" if why else ""))
    elif want.refund and view.status is TaskStatus.WAITING and view.proposed_refund != want.refund:
        sentences.append(f"must propose {_money(want.refund)}, proposes {_money(view.proposed_refund)}")
    return sentences


def _bookings(due: Refund | None, booked: list[Refund]) -> list[str]:
    if booked == ([due] if due else []):
        return []
    listed = " and ".join(_money(refund) for refund in booked) or _money(None)
    return [f"the books must hold {_money(due)}, they hold {listed}"]


def _money(refund: Refund | None) -> str:
    return formatting.refund(refund) if refund else "no refund"


class SampleRefused(RefundAgentError):
    """The agent did not take a bundled sample."""

    code = "sample_refused"


def demo(
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the tasks at most.")] = 600,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = 8,
    systems_url: SystemsUrl = SYSTEMS_URL,
    url: Url = None,
    token: Token = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Works the sample tickets; exit code 1 when a task or a booked refund is not as it must be, or when fewer
    than 95 of 100 clear tickets were understood."""
    from sandbox.data import load_expected, load_tickets

    lines = [TicketLine(number, ticket) for number, ticket in enumerate(load_tickets(), start=1)]
    with connect(url, token) as client:
        receipts = send_with_meter(lines, client.submit, Pace(None, concurrency), len(lines))
        refused = [receipt for receipt in receipts if receipt.kind in (AnswerKind.CONFLICT, AnswerKind.REFUSED)]
        if refused:
            raise SampleRefused(
                f"{len(refused)} of {len(lines)} samples were not taken, first {refused[0].task_id}; "
                "use a token for every tenant, and a state folder without other tickets of these ids"
            )
        ids = [receipt.task_id for receipt in receipts]
        rested, running = follow_with_meter(ids, client.get, timeout)
        views = {view.task_id: view for view in [*rested, *map(client.get, running)]}
    verdict = judge(load_expected(), views, _refund_book(systems_url))
    show_json(_view(verdict)) if as_json else _show(verdict)
    if not verdict.good:
        raise typer.Exit(1)


def _refund_book(systems_url: str) -> tuple[Booked, ...]:
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
        raise NotUnderstood(f"{address} is no refund book of the sandbox; check --systems-url") from None


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
    say(f"refunds         {_refunds(verdict)}")
    waiting = sum(count for (name, _), count in verdict.tally.items() if name == TaskStatus.WAITING.value)
    if waiting:
        say(f"for a person    {waiting} wait: `make up`, then `.venv/bin/refund-agent task list --status waiting`")
    for sentence in (*verdict.misclassified, *verdict.differences):
        complain(sentence)


def _share(verdict: Verdict) -> str:
    return f" ({100 * verdict.clear_right / verdict.clear:.1f} %)" if verdict.clear else ""


def _refunds(verdict: Verdict) -> str:
    wrong = sum("the books must hold" in difference for difference in verdict.differences)
    if not wrong:
        return f"{verdict.refunds_booked} booked, each exactly as it must be"
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
