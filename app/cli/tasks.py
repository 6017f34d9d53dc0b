"""`refund-agent task ...`: reads and steers tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError

from app import reasons
from app.cli.connection import AsJson, Token, Url, connect
from app.cli.faults import NothingRecorded
from app.cli.layout import Column, Kind, figures, name
from app.cli.period import Tenant
from app.cli.screen import (
    AsCsv,
    CsvCell,
    Wide,
    complain,
    one_form,
    say,
    show_csv,
    show_facts,
    show_json,
    show_table,
)
from app.cli.wording import what_is_wrong
from app.models import DecisionView, Frozen, Question, Refund, TaskPage, TaskStatus, TaskView, TicketView

MAX_LISTED = 200
MAX_LETTER = 1_000  # characters of a customer's text
_CSV = (
    *("task", "tenant", "ticket", "status", "created_at", "updated_at", "category", "waiting_for", "reason"),
    *("outcome", "order", "amount", "currency", "error"),
)
Note = Annotated[str, typer.Option(help="Why; kept in the record, the customer does not see it.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id: tenant:ticket.")]

commands = typer.Typer(help="Reads and steers tasks.", no_args_is_help=True)


class Approval(Frozen):
    """What `task approve` sends; without a refund, the drafted one is paid."""

    refund: Refund | None = None
    note: str = ""


class Rejection(Frozen):
    """What `task reject` sends."""

    note: str = ""


class Termination(Frozen):
    """What `task terminate` sends."""

    reason: str


@commands.command("list")
def list_tasks(
    tenant: Tenant = None,
    status: Annotated[TaskStatus | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LISTED, help="Tasks on a page.")] = 50,
    after: Annotated[str | None, typer.Option(help="The `next_after` of the page before.")] = None,
    url: Url = None,
    token: Token = None,
    wide: Wide = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Lists tasks, oldest first."""
    one_form(as_csv=as_csv, as_json=as_json)
    with connect(url, token) as client:
        page = client.list(tenant, status, limit, after)
        while not page.tasks and page.next_after:  # those it looked through are in other states
            page = client.list(tenant, status, limit, page.next_after)
        if not page.tasks and tenant and not client.list(tenant, None, 1, None).tasks:
            raise NothingRecorded(f"there is no task of tenant {tenant}; `refund-agent task list` shows those of all")
    if as_json:
        show_json(page.model_dump(mode="json"))
        return
    if as_csv:
        show_csv(_CSV, map(_csv_row, page.tasks))
    elif not page.tasks:
        say(f"no task is {status.value}" if status else "there is no task yet; `refund-agent submit FILE` makes some")
    else:
        _show_list(page)
    if page.next_after:
        complain(f"more with: --after {page.next_after}")


def _show_list(page: TaskPage) -> None:
    columns = [*name("task", "status", "since"), Column("outcome or reason", Kind.PROSE), *figures("refund")]
    show_table(columns, [_row(task) for task in page.tasks])


@commands.command("show")
def show_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Shows one task; of one that waits for a person, what there is to know for the decision."""
    with connect(url, token) as client:
        view = client.get(task_id)
        ticket = client.ticket(task_id) if view.question and not as_json else None
    if as_json:
        show_json(view.model_dump(mode="json"))
    else:
        show_facts([("task", view.task_id), *_facts(view), *(_letter(ticket) if ticket else ())])


@commands.command("pause")
def pause_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Holds a running task between two steps."""
    _act(task_id, "pause", None, url, token, as_json=as_json)


@commands.command("resume")
def resume_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Lets a paused or parked task go on."""
    _act(task_id, "resume", None, url, token, as_json=as_json)


@commands.command("rerun")
def rerun_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Begins a task again from its ticket that the workflow engine has lost, or that failed or was terminated."""
    _act(task_id, "rerun", None, url, token, as_json=as_json)


@commands.command("approve")
def approve_task(
    task_id: TaskId,
    order: Annotated[str | None, typer.Option(help="Another order than the drafted one.")] = None,
    amount: Annotated[str | None, typer.Option(help="Another amount, as 12.30.")] = None,
    currency: Annotated[str | None, typer.Option(help="The amount's currency, as EUR.")] = None,
    note: Note = "",
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Approves what waits; exit code 1 when it is refused. A refund of your own needs --order, --amount, --currency."""
    approval = Approval(refund=_refund(order, amount, currency), note=note)
    _decide(task_id, "approve", approval, url, token, as_json=as_json)


@commands.command("reject")
def reject_task(
    task_id: TaskId, note: Note = "", url: Url = None, token: Token = None, as_json: AsJson = False
) -> None:
    """Rejects what waits: the customer is told, no money moves. Exit code 1 when it is refused."""
    _decide(task_id, "reject", Rejection(note=note), url, token, as_json=as_json)


@commands.command("terminate")
def terminate_task(
    task_id: TaskId,
    reason: Annotated[str, typer.Option(help="Why; stands in the task's record.")],
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Ends a task for good. What is posted stays posted."""
    _act(task_id, "terminate", Termination(reason=reason), url, token, as_json=as_json)


def _act(task_id: str, verb: str, body: BaseModel | None, url: str | None, token: str | None, *, as_json: bool) -> None:
    with connect(url, token) as client:
        view = client.act(task_id, verb, body)
    if as_json:
        show_json(view.model_dump(mode="json"))
    else:
        say(f"{view.task_id} is {view.status.value}")


def _decide(task_id: str, verb: str, body: BaseModel, url: str | None, token: str | None, *, as_json: bool) -> None:
    """Says what really happened; a refusal ends the command as an error."""
    with connect(url, token) as client:
        view, accepted = client.decide(task_id, verb, body)
    if as_json:
        show_json(view.model_dump(mode="json"))
    elif accepted:
        done = {"approve": "approved", "reject": "rejected"}[verb]
        said = view.decisions[-1].refund if view.decisions else None
        what = f": {money(said)} for order {said.order_id}" if said else ""
        say(f"{task_id} {done}{what}; it is {view.status.value}")
    else:
        say(f"{task_id}: handed over, and the task has not taken it yet; look with `refund-agent task show {task_id}`")


def _refund(order: str | None, amount: str | None, currency: str | None) -> Refund | None:
    given = {"order_id": order, "amount": amount, "currency": currency}
    if not any(value is not None for value in given.values()):
        return None
    try:
        return Refund.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        field = str(fault["loc"][0])
        option = {"order_id": "--order"}.get(field, f"--{field}")
        wrong = "is missing" if given[field] is None else what_is_wrong(field, fault)
        raise typer.BadParameter(f"{option} {wrong}; give --order, --amount and --currency") from None


def money(refund: Refund | None) -> str:
    """A refund's sum for a table."""
    return f"{refund.amount} {refund.currency}" if refund else ""


def what_came_of_it(view: TaskView) -> str:
    """A task's outcome, or what it waits for, or its error."""
    return (view.result.outcome.value if view.result else None) or view.waiting_for or view.error or ""


def _row(view: TaskView) -> tuple[str, ...]:
    refund = view.result.refund if view.result else view.proposed_refund
    return (view.task_id, view.status.value, _moment(view.created_at), what_came_of_it(view), money(refund))


def _csv_row(view: TaskView) -> tuple[CsvCell, ...]:
    result = view.result
    refund = result.refund if result else view.proposed_refund
    return (
        view.task_id,
        view.tenant,
        view.ticket_id,
        view.status.value,
        view.created_at,
        view.updated_at,
        view.category.value if view.category else None,
        view.waiting_for,
        reasons.explain(view.waiting_for).words if view.waiting_for else None,
        result.outcome.value if result else None,
        refund.order_id if refund else None,
        str(refund.amount) if refund else None,
        refund.currency if refund else None,
        view.error,
    )


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")


def _facts(view: TaskView) -> list[tuple[str, str]]:
    result, proposed = view.result, view.proposed_refund
    category = (result.category if result else None) or view.category
    return [
        ("status", view.status.value),
        ("tenant", view.tenant),
        ("ticket", view.ticket_id),
        ("created (UTC)", _moment(view.created_at)),
        ("updated (UTC)", _moment(view.updated_at or "")),
        ("waits for", view.waiting_for or ""),
        ("proposed refund", f"{money(proposed)} for order {proposed.order_id}" if proposed else ""),
        *(_asked(view.question, proposed) if view.question else ()),
        ("outcome", result.outcome.value if result else ""),
        ("category", category.value if category else ""),
        ("refund", _paid(view)),
        ("decided by", (result.decided_by or "") if result else ""),
        ("error", view.error or ""),
        ("but", view.caveat or ""),
        *(("decision" if number == 0 else "", decision_line(each)) for number, each in enumerate(view.decisions)),
    ]


def _asked(question: Question, proposed: Refund | None) -> Iterator[tuple[str, str]]:
    """What the books said when the person was asked."""
    if question.limit is not None and proposed:
        yield "nobody is asked up to", f"{question.limit} {proposed.currency}"
    if order := question.order:
        yield (
            f"order {order.order_id}",
            (f"{order.charged} {order.currency} paid, {order.refunded} refunded, {order.refundable} left"),
        )
    if account := question.account:
        known = f"{account.tier}, risk {account.risk}, {account.since_days} days"
        yield "account", f"{known}, {account.refunds_90d} refunds in 90 days"
    yield "asked (UTC)", _moment(question.asked_at)
    yield "until (UTC)", _moment(question.expires_at)


def _letter(ticket: TicketView) -> Iterator[tuple[str, str]]:
    yield "customer", ticket.customer_id
    yield "subject", " ".join(ticket.subject.split())
    text = " ".join(ticket.text.split())
    yield "text", text if len(text) <= MAX_LETTER else f"{text[:MAX_LETTER]} ... ({len(text):,} characters)"


def decision_line(made: DecisionView) -> str:
    """A decision, or an attempt at one, on one line."""
    wanted = f" {money(made.refund)} for order {made.refund.order_id}" if made.refund else ""
    note = f" ({' '.join(made.note.split())})" if made.note else ""
    return f"{_moment(made.at)} {made.by}: {made.verdict}{wanted}{note}: {made.words}"


def _paid(view: TaskView) -> str:
    result = view.result
    if not result or not result.refund:
        return ""
    booked = f", booked as {result.refund_id}" if result.refund_id else ""
    return f"{money(result.refund)} for order {result.refund.order_id}{booked}"
