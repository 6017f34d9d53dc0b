"""Sending many tickets: order within a task, rate, retries, and errors that end the sending."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from app.cli.faults import AgentAway, AgentRefused
from app.cli.submit import WAITS_SECONDS, AnswerKind, Pace, Receipt, submit_all
from app.cli.ticket_files import TicketLine
from app.domain.models import Intake, TaskView, Ticket
from tests.web.fakes import FakeTaskService, make_ticket


class Time:
    """A clock that advances only in `sleep`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.sleeps.append(seconds)
            self.now += seconds


def lines(*ticket_ids: str) -> list[TicketLine]:
    return [TicketLine(number, make_ticket(ticket_id)) for number, ticket_id in enumerate(ticket_ids, start=1)]


def run(
    given: list[TicketLine],
    send: Callable[[Ticket], tuple[TaskView, Intake]],
    rate: float | None = None,
    at_once: int = 4,
) -> tuple[list[Receipt], Time]:
    time, receipts = Time(), list[Receipt]()
    submit_all(given, send, Pace(rate, at_once, time.clock, time.sleep), receipts.append)
    return sorted(receipts, key=lambda receipt: receipt.number), time


def test_every_line_gets_a_receipt() -> None:
    service = FakeTaskService()
    service.submit(make_ticket("T-2"))
    receipts, _ = run([*lines("T-1", "T-2"), TicketLine(3, fault="is no ticket")], service.submit)
    assert receipts == [
        Receipt(1, AnswerKind.CREATED, "acme:T-1"),
        Receipt(2, AnswerKind.SAME, "acme:T-2"),
        Receipt(3, AnswerKind.REFUSED, reason="is no ticket"),
    ]


def test_a_ticket_that_is_started_later_is_accepted() -> None:
    service = FakeTaskService()
    service.slow = True
    receipts, _ = run(lines("T-1"), service.submit)
    assert receipts == [Receipt(1, AnswerKind.LATER, "acme:T-1")]


def test_refusals_do_not_stop_the_rest() -> None:
    def send(ticket: Ticket) -> tuple[TaskView, Intake]:
        if ticket.ticket_id == "T-3":
            return FakeTaskService().submit(ticket)
        raise AgentRefused("no", refusal=409 if ticket.ticket_id == "T-1" else 403)

    receipts, _ = run(lines("T-1", "T-2", "T-3"), send)
    assert [receipt.kind for receipt in receipts] == [AnswerKind.CONFLICT, AnswerKind.REFUSED, AnswerKind.CREATED]


@pytest.mark.parametrize("_again", range(20))
def test_of_two_lines_with_one_id_the_first_wins(_again: int) -> None:
    service = FakeTaskService()
    given = [TicketLine(n, make_ticket("T-1", text=f"text {n}")) for n in range(1, 9)]
    kinds: dict[int, AnswerKind] = {}

    def send(ticket: Ticket) -> tuple[TaskView, Intake]:
        try:
            return service.submit(ticket)
        except Exception:
            raise AgentRefused("conflict", refusal=409) from None

    receipts, _ = run(given, send, at_once=8)
    kinds = {receipt.number: receipt.kind for receipt in receipts}
    assert kinds == {1: AnswerKind.CREATED} | dict.fromkeys(range(2, 9), AnswerKind.CONFLICT)


def test_concurrent_requests_are_limited() -> None:
    service, lock, state = FakeTaskService(), threading.Lock(), {"now": 0, "most": 0}
    barrier = threading.Barrier(3, timeout=60)

    def send(ticket: Ticket) -> tuple[TaskView, Intake]:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        barrier.wait()  # passes only when three are really in work together
        with lock:
            state["now"] -= 1
        return service.submit(ticket)

    run(lines(*(f"T-{n}" for n in range(12))), send, at_once=3)
    assert state == {"now": 0, "most": 3}


def test_the_rate_is_kept() -> None:
    _, time = run(lines(*(f"T-{n}" for n in range(11))), FakeTaskService().submit, rate=4.0, at_once=1)
    assert time.now - 100.0 == pytest.approx(10 / 4.0)


def test_an_agent_that_is_away_for_a_moment_is_waited_for() -> None:
    service, left = FakeTaskService(), [AgentAway("starting"), AgentAway("starting")]

    def send(ticket: Ticket) -> tuple[TaskView, Intake]:
        if left:
            raise left.pop()
        return service.submit(ticket)

    receipts, time = run(lines("T-1"), send)
    assert [receipt.kind for receipt in receipts] == [AnswerKind.CREATED]
    assert time.sleeps == list(WAITS_SECONDS[:2])


@pytest.mark.parametrize("fault", [AgentAway("gone"), AgentRefused("who are you", refusal=401)])
def test_an_error_of_the_caller_ends_the_sending(fault: Exception) -> None:
    asked: list[str] = []

    def send(ticket: Ticket) -> tuple[TaskView, Intake]:
        asked.append(ticket.ticket_id)
        raise fault

    with pytest.raises(type(fault)):
        run(lines(*(f"T-{n}" for n in range(100))), send, at_once=2)
    assert len(set(asked)) <= 4
