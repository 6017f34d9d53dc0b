"""`refund-agent task ...`: lists, shows, decides and controls tasks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError

from app.cli.client import AsJson, Token, Url, connect
from app.cli.faults import NothingRecorded, what_is_wrong
from app.cli.opening import Tenant
from app.cli.screen import (
    AsCsv,
    Column,
    ColumnKind,
    CsvCell,
    Wide,
    complain,
    figures,
    name,
    require_one_format,
    say,
    show_csv,
    show_facts,
    show_json,
    show_table,
)
from app.domain import decision_texts, formatting
from app.domain.formatting import instant, minute, money
from app.domain.models import DecisionView, Frozen, Question, Refund, TaskStatus, TaskView, TicketView

# The texts about a task: what it waits for, what was decided, and what to do next.

MAX_LETTER = 1_000  # characters of a customer's text that are shown
COLUMNS = [
    *name("task", "status"),
    Column("received (UTC)"),
    *figures("refund"),
    Column("outcome or reason", ColumnKind.PROSE),
]
CSV = (
    *("task", "tenant", "ticket", "status", "created_at", "updated_at", "category", "waiting_for", "reason"),
    *("outcome", "order", "amount", "currency", "error"),
)


def row(view: TaskView) -> tuple[str, ...]:
    """A task as a row of the list."""
    refund = view.result.refund if view.result else view.proposed_refund
    amount = money(refund.amount, refund.currency) if refund else ""
    return (view.task_id, view.status.value, minute(view.created_at), amount, _outcome_text(view))


def _outcome_text(view: TaskView) -> str:
    """The task's outcome, or what it waits for, or its error."""
    waits = decision_texts.explain(view.waiting_for).words if view.waiting_for else ""
    return (view.result.outcome.value if view.result else None) or waits or view.error or ""


def csv_row(view: TaskView) -> tuple[CsvCell, ...]:
    """A task as a row of the CSV."""
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
        decision_texts.explain(view.waiting_for).words if view.waiting_for else None,
        result.outcome.value if result else None,
        refund.order_id if refund else None,
        str(refund.amount) if refund else None,
        refund.currency if refund else None,
        view.error,
    )


def facts(view: TaskView) -> list[tuple[str, str]]:
    """The details of a task, as pairs of name and value."""
    result, proposed = view.result, view.proposed_refund
    category = (result.category if result else None) or view.category
    return [
        ("task", view.task_id),
        ("status", view.status.value),
        *_waiting_facts(view),
        ("tenant", view.tenant),
        ("ticket", view.ticket_id),
        ("created (UTC)", instant(view.created_at)),
        ("updated (UTC)", instant(view.updated_at)),
        ("category", category.value if category else ""),
        ("proposed refund", formatting.refund(proposed) if proposed else ""),
        *(_question_facts(view.question, proposed) if view.question else ()),
        ("outcome", result.outcome.value if result else ""),
        ("refund", _refund_text(view)),
        ("decided by", (result.decided_by or "") if result else ""),
        ("error", view.error or ""),
        ("stuck", view.retrying.words if view.retrying else ""),
        ("but", view.caveat or ""),
        *(
            ("decision" if number == 0 else "", decision_line(decision))
            for number, decision in enumerate(view.decisions)
        ),
    ]


def _waiting_facts(view: TaskView) -> Iterator[tuple[str, str]]:
    if view.waiting_for:
        reason = decision_texts.explain(view.waiting_for)
        code = f" ({reason.code})" if reason.code != reason.words else ""
        yield "parked because" if view.status is TaskStatus.PARKED else "waits because", f"{reason.words}{code}"


def _question_facts(question: Question, proposed: Refund | None) -> Iterator[tuple[str, str]]:
    """The figures of the books when the question was asked."""
    order, account = question.order, question.account
    if question.limit is not None and proposed:
        yield "limit", money(question.limit, proposed.currency)
    if order:
        sums = f"{money(order.charged, order.currency)} charged, {order.refunded:,} refunded, {order.refundable:,} left"
        yield "order", f"{order.order_id}: {sums}"
    if account:
        text = f"customer for {account.since_days:,} days, {account.refunds_90d:,} refunds in the last 90"
        yield "account", f"{account.tier}, risk {account.risk}, {text}"
    yield "asked (UTC)", instant(question.asked_at)
    yield "decide by (UTC)", instant(question.expires_at)


def ticket_facts(ticket: TicketView) -> Iterator[tuple[str, str]]:
    """The customer's ticket, its text cut to `MAX_LETTER` characters."""
    yield "customer", ticket.customer_id
    yield "subject", " ".join(ticket.subject.split())
    text = " ".join(ticket.text.split())
    yield "text", text if len(text) <= MAX_LETTER else f"{text[:MAX_LETTER]} ... ({len(text):,} characters)"


def next_steps(view: TaskView) -> Iterator[str]:
    """What a person can do: advice on what to check, then the commands, one a line."""
    if view.status is TaskStatus.WAITING:
        known = view.proposed_refund or (view.question.order if view.question else None)
        options = f"--order {known.order_id if known else 'ORDER'} --amount AMOUNT "
        options += f"--currency {known.currency if known else 'CURRENCY'}"
        yield f"next: {decision_texts.explain(view.waiting_for or '').advice or 'approve or reject'}"
        if view.proposed_refund:
            yield f"  refund-agent task approve {view.task_id}"
        yield f"  refund-agent task approve {view.task_id} {options}"
        yield f"  refund-agent task reject {view.task_id}"
    elif view.status is TaskStatus.PARKED:
        yield "next: correct the cause, then"
        yield f"  refund-agent task resume {view.task_id}"
    elif view.status is TaskStatus.PAUSED:
        yield "next: to continue it"
        yield f"  refund-agent task resume {view.task_id}"


def decision_line(decision: DecisionView) -> str:
    """A decision, accepted or not, in one line."""
    refund = f" {formatting.refund(decision.refund)}" if decision.refund else ""
    note = f" ({' '.join(decision.note.split())})" if decision.note else ""
    return f"{instant(decision.at)} {decision.by}: {decision.verdict}{refund}{note}: {decision.words}"


def _refund_text(view: TaskView) -> str:
    result = view.result
    if not result or not result.refund:
        return ""
    booked = f", booked as {result.refund_id}" if result.refund_id else ""
    return f"{formatting.refund(result.refund)}{booked}"


# Following tasks until they rest: until they have ended, or wait for a person.

AT_REST = frozenset(TaskStatus) - {TaskStatus.RUNNING}
TROUBLED = frozenset({TaskStatus.FAILED, TaskStatus.PARKED, TaskStatus.TERMINATED})
ROUND = 64  # tasks polled before the next pause
PAUSE_SECONDS = 0.3


@dataclass(frozen=True)
class Watch:
    """How long to follow tasks, and the clock to use."""

    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def follow(
    task_ids: Iterable[str], get: Callable[[str], TaskView], watch: Watch, on_rest: Callable[[TaskView], None]
) -> tuple[str, ...]:
    """Passes each task to `on_rest` once it rests; returns the ids of those that still run at the time-out."""
    outstanding = deque(dict.fromkeys(task_ids))
    deadline = watch.clock() + watch.timeout_seconds
    while outstanding and watch.clock() < deadline:
        if not _poll_round(outstanding, get, on_rest):
            watch.sleep(PAUSE_SECONDS)
    return tuple(outstanding)


def _poll_round(outstanding: deque[str], get: Callable[[str], TaskView], on_rest: Callable[[TaskView], None]) -> bool:
    """Polls the first tasks and moves those that run to the end. True if at least half rest: no pause is needed."""
    count = min(ROUND, len(outstanding))
    rested = 0
    for _ in range(count):
        view = get(outstanding[0])
        if view.status in AT_REST:
            outstanding.popleft()
            on_rest(view)
            rested += 1
        else:
            outstanding.rotate(-1)
    return rested * 2 >= count


MAX_LISTED = 200
Note = Annotated[str, typer.Option(help="Reason; kept in the record, not shown to the customer.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id: tenant:ticket.")]

commands = typer.Typer(help="Lists, shows, decides and controls tasks.", no_args_is_help=True)


class ApproveRequest(Frozen):
    """The request of `task approve`. Without a refund, the drafted one is paid."""

    refund: Refund | None = None
    note: str = ""


class RejectRequest(Frozen):
    """The request of `task reject`."""

    note: str = ""


class TerminateRequest(Frozen):
    """The request of `task terminate`."""

    reason: str


@commands.command("list")
def list_tasks(
    tenant: Tenant = None,
    status: Annotated[TaskStatus | None, typer.Option(help="Only tasks in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LISTED, help="Tasks on a page.")] = 50,
    after: Annotated[str | None, typer.Option(help="The `next_after` of the previous page.")] = None,
    url: Url = None,
    token: Token = None,
    wide: Wide = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Lists tasks, oldest first."""
    require_one_format(as_csv=as_csv, as_json=as_json)
    with connect(url, token) as client:
        page = client.list(tenant, status, limit, after)
        while not page.tasks and page.next_after:  # the agent skips tasks in other states page by page
            page = client.list(tenant, status, limit, page.next_after)
        if not page.tasks and tenant and not client.list(tenant, None, 1, None).tasks:
            raise NothingRecorded(f"there is no task of tenant {tenant}; `refund-agent task list` shows all tasks")
    if as_json:
        show_json(page)
        return
    if as_csv:
        show_csv(CSV, map(csv_row, page.tasks))
    elif not page.tasks:
        say(f"no task is {status.value}" if status else "there is no task yet; `refund-agent submit FILE` creates some")
    else:
        show_table(COLUMNS, map(row, page.tasks))
    if page.next_after:
        complain(f"for the next page: --after {page.next_after}")


@commands.command("show")
def show_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Shows a task: its state, why it waits, and the commands to decide it."""
    with connect(url, token) as client:
        view = client.get(task_id)
        ticket = client.ticket(task_id) if view.question and not as_json else None
    if as_json:
        show_json(view)
        return
    show_facts([*facts(view), *(ticket_facts(ticket) if ticket else ())])
    for line in next_steps(view):
        say(line)


@commands.command("pause")
def pause_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Pauses a running task before its next step."""
    _act(task_id, "pause", None, url, token, as_json=as_json)


@commands.command("resume")
def resume_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Continues a paused or parked task."""
    _act(task_id, "resume", None, url, token, as_json=as_json)


@commands.command("rerun")
def rerun_task(task_id: TaskId, url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Restarts a task from its ticket if the workflow engine has lost it, or if it failed or was terminated."""
    _act(task_id, "rerun", None, url, token, as_json=as_json)


@commands.command("approve")
def approve_task(
    task_id: TaskId,
    order: Annotated[str | None, typer.Option(help="The order to refund instead of the drafted one.")] = None,
    amount: Annotated[str | None, typer.Option(help="The amount to refund, such as 12.30.")] = None,
    currency: Annotated[str | None, typer.Option(help="The amount's currency, such as EUR.")] = None,
    note: Note = "",
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Approves the proposed refund, or another one (--order, --amount, --currency); exit code 1 if it is refused."""
    approval = ApproveRequest(refund=_refund(order, amount, currency), note=note)
    _decide(task_id, "approve", approval, url, token, as_json=as_json)


@commands.command("reject")
def reject_task(
    task_id: TaskId, note: Note = "", url: Url = None, token: Token = None, as_json: AsJson = False
) -> None:
    """Rejects the refund: the customer gets a letter, no money moves. Exit code 1 if it is refused."""
    _decide(task_id, "reject", RejectRequest(note=note), url, token, as_json=as_json)


@commands.command("terminate")
def terminate_task(
    task_id: TaskId,
    reason: Annotated[str, typer.Option(help="Reason; kept in the task's record.")],
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Ends a task for good. A posted refund stays posted."""
    _act(task_id, "terminate", TerminateRequest(reason=reason), url, token, as_json=as_json)


def _act(task_id: str, verb: str, body: BaseModel | None, url: str | None, token: str | None, *, as_json: bool) -> None:
    with connect(url, token) as client:
        view = client.act(task_id, verb, body)
    if as_json:
        show_json(view)
    else:
        say(f"{view.task_id} is {view.status.value}")


def _decide(task_id: str, verb: str, body: BaseModel, url: str | None, token: str | None, *, as_json: bool) -> None:
    """Sends a decision and prints its effect; a refusal is an error."""
    with connect(url, token) as client:
        view, accepted = client.decide(task_id, verb, body)
    if as_json:
        show_json(view)
    elif accepted:
        participle = {"approve": "approved", "reject": "rejected"}[verb]
        refund = view.decisions[-1].refund if view.decisions else None
        detail = f": {formatting.refund(refund)}" if refund else ""
        say(f"{task_id} {participle}{detail}; it is {view.status.value}")
    else:
        command = f"refund-agent task show {task_id}"
        say(f"{task_id}: handed over, but the task has not accepted it yet; check with `{command}`")


def _refund(order: str | None, amount: str | None, currency: str | None) -> Refund | None:
    options = {"order_id": order, "amount": amount, "currency": currency}
    if not any(value is not None for value in options.values()):
        return None
    try:
        return Refund.model_validate(options)
    except ValidationError as error:
        fault = error.errors()[0]
        field = str(fault["loc"][0])
        option = {"order_id": "--order"}.get(field, f"--{field}")
        problem = "is missing" if options[field] is None else what_is_wrong(field, fault)
        raise typer.BadParameter(f"{option} {problem}; give --order, --amount and --currency") from None
