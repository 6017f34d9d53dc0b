"""`refund-agent task ...`: reads and steers tasks."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError

from app.cli import showing
from app.cli.connection import AsJson, Token, Url, connect
from app.cli.faults import NothingRecorded
from app.cli.period import Tenant
from app.cli.screen import (
    AsCsv,
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
from app.domain.models import Frozen, Refund, TaskStatus

MAX_LISTED = 200
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
        show_csv(showing.CSV, map(showing.csv_row, page.tasks))
    elif not page.tasks:
        say(f"no task is {status.value}" if status else "there is no task yet; `refund-agent submit FILE` makes some")
    else:
        show_table(showing.COLUMNS, map(showing.row, page.tasks))
    if page.next_after:
        complain(f"more with: --after {page.next_after}")


@commands.command("show")
def show_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Shows one task: where it is, why it waits, and the commands that decide it."""
    with connect(url, token) as client:
        view = client.get(task_id)
        ticket = client.ticket(task_id) if view.question and not as_json else None
    if as_json:
        show_json(view.model_dump(mode="json"))
        return
    show_facts([*showing.facts(view), *(showing.letter(ticket) if ticket else ())])
    for line in showing.next_steps(view):
        say(line)


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
        what = f": {showing.money(said)} for order {said.order_id}" if said else ""
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
        fault = error.errors()[0]  # the person's own words
        field = str(fault["loc"][0])
        option = {"order_id": "--order"}.get(field, f"--{field}")
        wrong = "is missing" if given[field] is None else what_is_wrong(field, fault)
        raise typer.BadParameter(f"{option} {wrong}; give --order, --amount and --currency") from None
