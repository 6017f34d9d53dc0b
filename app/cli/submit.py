"""`refund-agent submit`: sends tickets from a file or a pipe. Bad lines are reported and do not stop the others."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, BinaryIO

import typer

from app.cli.client import AsJson, Token, Url, connect
from app.cli.faults import AgentAway, AgentRefused
from app.cli.opening import tenant_name
from app.cli.screen import ProgressMeter, complain, say, show_json
from app.cli.tasks import TROUBLED, Watch, follow
from app.cli.ticket_files import TicketLine, raw_lines, read_export
from app.domain.models import Frozen, Intake, TaskStatus, TaskView, Ticket

# Concurrent sending: in order for each task, at a given rate, with retries while the agent is away.

WAITS_SECONDS = (0.25, 0.5, 1.0, 2.0)
FATAL = frozenset({401})  # statuses that concern the caller, not the ticket

Send = Callable[[Ticket], tuple[TaskView, Intake]]


class AnswerKind(StrEnum):
    """The agent's answer to one line."""

    CREATED = "created"
    SAME = "same"  # the ticket is known, and its task exists
    LATER = "later"  # accepted; the agent starts the task once its engine answers
    CONFLICT = "conflict"  # another ticket has this id
    REFUSED = "refused"


class SubmitView(Frozen):
    """The number of lines by answer and, with `--wait`, of tasks by state."""

    created: int
    same: int
    later: int
    conflict: int
    refused: int
    states: dict[TaskStatus, int]


_KINDS = {Intake.NEW: AnswerKind.CREATED, Intake.KNOWN: AnswerKind.SAME, Intake.LATER: AnswerKind.LATER}
ACCEPTED = frozenset(_KINDS.values())


@dataclass(frozen=True)
class Receipt:
    """The answer to one line, with the reason if it was not accepted."""

    number: int
    kind: AnswerKind
    task_id: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Pace:
    """How fast to send: tickets a second (None: without limit) and concurrent requests."""

    rate: float | None
    concurrency: int
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def submit_all(lines: Iterable[TicketLine], send: Send, pace: Pace, on_receipt: Callable[[Receipt], None]) -> None:
    """Sends every ticket and passes a receipt for each line to `on_receipt`, in any order.

    Raises AgentAway if the agent stays away, and AgentRefused if it rejects the token. Tickets accepted until then stay
    accepted, so sending the same file again continues from there.
    """
    pending: dict[str, Future[Receipt]] = {}
    due = pace.clock()
    with ThreadPoolExecutor(pace.concurrency) as pool:
        try:
            for line in lines:
                if line.ticket is None:
                    on_receipt(Receipt(line.number, AnswerKind.REFUSED, reason=line.fault))
                    continue
                due = _wait_until(due, pace)
                _make_room(pending, line.ticket.task_id, pace.concurrency, on_receipt)
                pending[line.ticket.task_id] = pool.submit(_deliver, line.number, line.ticket, send, pace)
            _collect(pending, set(pending.values()), on_receipt)
        finally:
            pool.shutdown(cancel_futures=True)


def _wait_until(due: float, pace: Pace) -> float:
    """Waits until `due`, the next moment that the rate allows; returns the one after it."""
    if pace.rate is None:
        return due
    now = pace.clock()
    if due > now:
        pace.sleep(due - now)
    return max(due, now) + 1 / pace.rate


def _make_room(
    pending: dict[str, Future[Receipt]], task_id: str, room: int, on_receipt: Callable[[Receipt], None]
) -> None:
    """Waits until a request may be sent. Two lines of one task are sent in order, so that the first one wins."""
    if task_id in pending:
        wait([pending[task_id]])
        _collect(pending, {pending[task_id]}, on_receipt)
    while len(pending) >= room:
        done, _ = wait(pending.values(), return_when=FIRST_COMPLETED)
        _collect(pending, done, on_receipt)


def _collect(
    pending: dict[str, Future[Receipt]], done: set[Future[Receipt]], on_receipt: Callable[[Receipt], None]
) -> None:
    for task_id in [task_id for task_id, future in pending.items() if future in done]:
        on_receipt(pending.pop(task_id).result())


def _deliver(number: int, ticket: Ticket, send: Send, pace: Pace) -> Receipt:
    try:
        view, intake = _send_with_retries(lambda: send(ticket), pace.sleep)
        return Receipt(number, _KINDS[intake], view.task_id)
    except AgentRefused as error:
        if error.refusal in FATAL:
            raise
        kind = AnswerKind.CONFLICT if error.refusal == 409 else AnswerKind.REFUSED
        return Receipt(number, kind, ticket.task_id, str(error))


def _send_with_retries(
    send: Callable[[], tuple[TaskView, Intake]], sleep: Callable[[float], None]
) -> tuple[TaskView, Intake]:
    # Repeating is safe, since the same ticket is the same task.
    for seconds in WAITS_SECONDS:
        try:
            return send()
        except AgentAway:
            sleep(seconds)
    return send()


NAMED = 10  # tasks that are listed by id


def submit(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(metavar="FILE|-", help="Tickets: JSON Lines, a JSON array or CSV."),
    ],
    tenant: Annotated[
        str | None, typer.Option(parser=tenant_name, metavar="TENANT", help="The tenant of lines that name none.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the tasks until they end or wait.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Most tickets a second.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Concurrent requests.")] = 4,
    timeout: Annotated[float, typer.Option(min=0, help="Most seconds for --wait.")] = 600,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Submits tickets. The same ticket gives the same task, so a file can be sent again at any time. Exit code 1 if a
    line was not accepted or, with --wait, a task failed, was parked or terminated, or still ran at --timeout; tasks
    that wait for a person are fine."""
    export = read_export(str(getattr(file, "name", "-")), file, tenant, _count_lines(file))
    if export.ignored_columns:
        complain(f"ignored columns that are no fields of a ticket: {', '.join(export.ignored_columns)}")
    with connect(url, token) as client:
        receipts = send_with_meter(export.lines, client.submit, Pace(rate, concurrency), export.total)
        accepted = [receipt.task_id for receipt in receipts if receipt.kind in ACCEPTED]
        rested, running = follow_with_meter(accepted, client.get, timeout) if wait else ([], ())
    totals = count_kinds(receipts)
    states = count_states(rested, running) if wait else {}
    _show(totals, states, as_json=as_json)
    if not receipts:
        complain(f"{getattr(file, 'name', '-')} contains no ticket")
    for line in _open_tasks(rested, running, timeout):
        complain(line)
    troubled = running or any(view.status in TROUBLED for view in rested)
    if totals[AnswerKind.REFUSED.value] or totals[AnswerKind.CONFLICT.value] or troubled:
        raise typer.Exit(1)


def send_with_meter(lines: Iterable[TicketLine], send: Send, pace: Pace, total: int | None) -> list[Receipt]:
    """Sends the tickets while showing progress, and reports each line that was not accepted. Raises AgentAway,
    AgentRefused."""
    receipts: list[Receipt] = []
    counts: Counter[AnswerKind] = Counter()

    def take(receipt: Receipt) -> None:
        receipts.append(receipt)
        counts[receipt.kind] += 1
        if receipt.reason:
            task = f"{receipt.task_id}: " if receipt.task_id else ""
            complain(f"line {receipt.number}: {task}{receipt.reason}")
        meter.step("  ".join(f"{kind.value} {number}" for kind, number in counts.items()))

    with ProgressMeter("submitted", total) as meter:
        try:
            submit_all(lines, send, pace, take)
        except AgentAway as error:
            accepted = sum(counts[kind] for kind in ACCEPTED)
            message = f"{error}; {accepted} tickets were accepted, so send the same file again"
            raise AgentAway(message, code=error.code) from None
    return receipts


def follow_with_meter(
    task_ids: list[str], get: Callable[[str], TaskView], timeout_seconds: float
) -> tuple[list[TaskView], tuple[str, ...]]:
    """Follows tasks while showing progress; returns the tasks that rest, and the ids of those that still run."""
    rested: list[TaskView] = []
    counts: Counter[str] = Counter()
    unique = list(dict.fromkeys(task_ids))

    def take(view: TaskView) -> None:
        rested.append(view)
        counts[view.status.value] += 1
        meter.step("  ".join(f"{name} {number}" for name, number in counts.items()))

    with ProgressMeter("at rest", len(unique)) as meter:
        running = follow(unique, get, Watch(timeout_seconds), take)
    return rested, running


def count_kinds(receipts: Iterable[Receipt]) -> dict[str, int]:
    """The number of lines by answer, including zeros."""
    counts = Counter(receipt.kind for receipt in receipts)
    return {kind.value: counts[kind] for kind in AnswerKind}


def count_states(rested: Iterable[TaskView], running: Iterable[str]) -> dict[str, int]:
    """The number of tasks by state, without zeros."""
    counts = Counter(view.status for view in rested)
    counts[TaskStatus.RUNNING] += len(tuple(running))
    return {status.value: counts[status] for status in TaskStatus if counts[status]}


def _show(totals: dict[str, int], states: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        show_json(SubmitView.model_validate({**totals, "states": states}))
        return
    say("  ".join(f"{name} {number}" for name, number in totals.items()))
    if states:
        say("  ".join(f"{name} {number}" for name, number in states.items()))


def _open_tasks(rested: Iterable[TaskView], running: tuple[str, ...], timeout_seconds: float) -> Iterator[str]:
    """Lists the tasks that need attention: still running, failed, parked, terminated or waiting."""
    views = list(rested)
    yield from _list_tasks(f"still run after {timeout_seconds:g} s", running)
    for status in (status for status in TaskStatus if status in TROUBLED):
        yield from _list_tasks(f"are {status.value}", [_task_text(view) for view in views if view.status is status])
    waiting = sum(view.status is TaskStatus.WAITING for view in views)
    if waiting:
        yield f"{waiting:,} wait for a person: `refund-agent task list --status waiting`, then `task show TASK`"


def _list_tasks(predicate: str, tasks: Sequence[str]) -> Iterator[str]:
    if tasks:
        yield f"{len(tasks):,} {predicate}:"
        yield from (f"  {task}" for task in tasks[:NAMED])
        yield from [f"  and {len(tasks) - NAMED:,} more"] * (len(tasks) > NAMED)


def _task_text(view: TaskView) -> str:
    why = view.waiting_for or view.error
    return f"{view.task_id}: {why}" if why else view.task_id


def _count_lines(file: BinaryIO) -> int | None:
    """The number of non-empty lines of a regular file; None for a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    start = file.tell()
    count = sum(1 for raw in raw_lines(file) if raw.strip())
    file.seek(start)
    return count
