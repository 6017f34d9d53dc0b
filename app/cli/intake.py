"""Many tickets to the agent at once: in order for each task, at a rate, with patience for an agent that is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum

from app.cli.faults import AgentAway, AgentRefused
from app.cli.ticket_files import TicketLine
from app.domain.models import Intake, TaskView, Ticket

WAITS_SECONDS = (0.25, 0.5, 1.0, 2.0)
FATAL = frozenset({401})  # says something about the caller, not about the ticket

Send = Callable[[Ticket], tuple[TaskView, Intake]]


class Kind(StrEnum):
    """What became of one line."""

    CREATED = "created"
    SAME = "same"  # the same ticket is known: the same task
    LATER = "later"  # taken; the agent starts its task as soon as its engine answers
    CONFLICT = "conflict"  # another ticket has this id
    REFUSED = "refused"


_KINDS = {Intake.NEW: Kind.CREATED, Intake.KNOWN: Kind.SAME, Intake.LATER: Kind.LATER}
TAKEN = frozenset(_KINDS.values())


@dataclass(frozen=True)
class Receipt:
    """What became of one line, and why if it was not taken."""

    number: int
    kind: Kind
    task_id: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Pace:
    """How fast: tickets a second (None: as fast as they are taken) and requests at once."""

    rate: float | None
    concurrency: int
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def submit_all(lines: Iterable[TicketLine], send: Send, pace: Pace, on_receipt: Callable[[Receipt], None]) -> None:
    """Sends every ticket and hands over a receipt for each line, in no certain order.

    Raises AgentAway when the agent stays away, and AgentRefused when it does not know the token; tickets
    that were taken until then stay taken, and sending the same file again goes on from there.
    """
    pending: dict[str, Future[Receipt]] = {}
    due = pace.clock()
    with ThreadPoolExecutor(pace.concurrency) as pool:
        try:
            for line in lines:
                if line.ticket is None:
                    on_receipt(Receipt(line.number, Kind.REFUSED, reason=line.fault))
                    continue
                due = _wait_until(due, pace)
                _make_room(pending, line.ticket.task_id, pace.concurrency, on_receipt)
                pending[line.ticket.task_id] = pool.submit(_deliver, line.number, line.ticket, send, pace)
            _collect(pending, set(pending.values()), on_receipt)
        finally:
            pool.shutdown(cancel_futures=True)


def _wait_until(due: float, pace: Pace) -> float:
    """Waits for the moment that the rate allows; returns the next one."""
    if pace.rate is None:
        return due
    now = pace.clock()
    if due > now:
        pace.sleep(due - now)
    return max(due, now) + 1 / pace.rate


def _make_room(
    pending: dict[str, Future[Receipt]], task_id: str, room: int, on_receipt: Callable[[Receipt], None]
) -> None:
    """Two lines with one id go one after the other, so that the first one wins, each time."""
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
        view, intake = _patiently(lambda: send(ticket), pace.sleep)
        return Receipt(number, _KINDS[intake], view.task_id)
    except AgentRefused as error:
        if error.refusal in FATAL:
            raise
        kind = Kind.CONFLICT if error.refusal == 409 else Kind.REFUSED
        return Receipt(number, kind, ticket.task_id, str(error))


def _patiently(ask: Callable[[], tuple[TaskView, Intake]], sleep: Callable[[float], None]) -> tuple[TaskView, Intake]:
    # The same ticket is the same task, so asking again can do no harm.
    for seconds in WAITS_SECONDS:
        try:
            return ask()
        except AgentAway:
            sleep(seconds)
    return ask()
