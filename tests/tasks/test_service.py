"""One ticket is one run, whoever else sends it at the same moment; and every decision leaves a trail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.config import policy
from app.domain.deadline import remaining
from app.domain.errors import DecisionRefused, HistoryTampered, NotWaiting, Refused, TooLate, Unreachable
from app.domain.models import Decision, DecisionState, Intake, Question, Refund, SettledDecision, TaskStatus, Ticket
from app.domain.standing import Standing
from app.ledger.store import database
from app.ledger.store.decision_log import Decisions
from app.ledger.store.standings import ListedTask, Standings
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.tasks.service import TaskService
from app.tasks.workflow_client import Silence, WorkflowClient
from app.workflow.steps import TaskInput

TICKET = Ticket(tenant="bench", ticket_id="crowd", customer_id="load-1", subject="s", text="t")
# How long one of them stands still; a service that lets the other in meanwhile begins a second run.
STANDSTILL_SECONDS = 0.3


class Dapr(WorkflowClient):
    """As daprd: an instance that has completed is wiped and run again. A task takes no time here."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.asked = threading.Event()
        self.other_is_through = threading.Event()

    def get(self, task_id: str) -> Standing | None:
        """Whether there is one; the late thread stands still after it has asked."""
        found = Standing(status=TaskStatus.COMPLETED, at=now()) if task_id in self.begun else None
        if threading.current_thread().name == "late" and found is None:
            self.asked.set()
            self.other_is_through.wait(STANDSTILL_SECONDS)
        return found

    def start(self, task: TaskInput) -> None:
        """Begins a run."""
        self.begun.append(task.task_id)


def now() -> datetime:
    """A clock that stands still."""
    return datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[tuple[Engine, Writer]]:
    """An empty one."""
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    writer = Writer(engine)
    yield engine, writer
    writer.close()
    engine.dispose()


@pytest.fixture
def tickets(ledger: tuple[Engine, Writer]) -> Tickets:
    """Intake's memory."""
    return Tickets(*ledger, now)


@pytest.fixture
def trail(ledger: tuple[Engine, Writer]) -> Decisions:
    """Who decided what."""
    return Decisions(*ledger, now)


@pytest.fixture
def standings(ledger: tuple[Engine, Writer]) -> Standings:
    """Where tasks stand."""
    return Standings(*ledger, now)


def test_two_that_send_a_ticket_at_once_begin_one_run(tickets: Tickets, standings: Standings, trail: Decisions) -> None:
    dapr = Dapr()
    service = TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None)
    late = threading.Thread(target=service.submit, args=(TICKET,), name="late")
    late.start()
    assert dapr.asked.wait(60)
    service.submit(TICKET)
    dapr.other_is_through.set()
    late.join()
    assert dapr.begun == ["bench:crowd"]


REFUND = Refund.model_validate({"order_id": "O-1", "amount": "9999.00", "currency": "CHF"})
PROPOSED = Refund.model_validate({"order_id": "O-1", "amount": "59.90", "currency": "EUR"})
AT = "2026-11-22T00:00:01.000+00:00"
TURN = datetime.fromisoformat(AT)


class Waiting(WorkflowClient):
    """A task that waits for a person. `answer` is how its state reads after a decision; None: as before."""

    def __init__(self) -> None:
        self.run = Standing(
            status=TaskStatus.WAITING, at=TURN, waiting_for="above_limit", proposed_refund=PROPOSED, question=asked(1)
        )
        self.answer: Callable[[Decision], Standing] | None = None
        self.events: list[Decision] = []
        self.failure: Exception | None = None

    def get(self, task_id: str) -> Standing | None:
        """As it is."""
        return self.run

    def start(self, task: TaskInput) -> None:
        """It runs already."""

    def decide(self, task_id: str, decision: Decision) -> None:
        """The task takes it at once, if at all."""
        if self.failure:
            raise self.failure
        self.events.append(decision)
        self.run = self.answer(decision) if self.answer else self.run


def asked(number: int) -> Question:
    """The question of that number."""
    return Question(number=number, asked_at=AT, expires_at=AT)


def settled(decision: Decision, state: DecisionState, code: str = "", **figures: object) -> SettledDecision:
    """What the task says of it."""
    return SettledDecision.model_validate(decision.model_dump() | {"at": AT, "state": state, "code": code} | figures)


def accepted(decision: Decision) -> Standing:
    """The task goes on."""
    return Standing(
        status=TaskStatus.RUNNING, at=TURN, decisions=(settled(decision, DecisionState.ACCEPTED, refund=PROPOSED),)
    )


@pytest.fixture
def dapr() -> Waiting:
    """The task T-1, waiting."""
    return Waiting()


@pytest.fixture
def service(
    tickets: Tickets, standings: Standings, trail: Decisions, dapr: Waiting, monkeypatch: pytest.MonkeyPatch
) -> TaskService:
    """A service where nobody waits long."""
    monkeypatch.setattr("app.tasks.service._DECIDED_WITHIN_SECONDS", 0.0)
    service = TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None)
    service.submit(TICKET)
    return service


def approve(by: str = "kim", refund: Refund | None = None) -> Decision:
    """As the API makes one."""
    return Decision(verdict="approve", by=by, refund=refund)


def told(service: TaskService) -> list[tuple[str, str, DecisionState, str]]:
    """The trail, in short."""
    return [(each.by, each.verdict, each.state, each.code) for each in service.get(TICKET.task_id).decisions]


class Ended(Waiting):
    """A task that can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []

    def terminate(self, task_id: str, reason: str) -> None:
        """It is ended."""
        self.ended.append(task_id)


@pytest.mark.parametrize("told", [False, True])
def test_a_task_is_ended_only_while_the_customer_is_told_of_no_refund(
    tickets: Tickets, standings: Standings, trail: Decisions, told: bool
) -> None:
    asked: list[tuple[str, str]] = []

    def void(tenant: str, ticket_id: str) -> None:
        asked.append((tenant, ticket_id))
        if told:
            raise Refused("refunds/void refuses: already_committed", reason="already_committed")

    dapr = Ended()
    service = TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, void)
    service.submit(TICKET)
    if told:
        with pytest.raises(NotWaiting, match=r"already_committed.*task resume"):
            service.terminate(TICKET.task_id, "a mistake")
    else:
        service.terminate(TICKET.task_id, "a mistake")
    assert asked == [(TICKET.tenant, TICKET.ticket_id)]
    assert dapr.ended == ([] if told else [TICKET.task_id])


def test_an_accepted_decision_is_known_to_be_accepted(service: TaskService, dapr: Waiting) -> None:
    dapr.answer = accepted
    view, known = service.decide(TICKET.task_id, approve(), "well said, kim@example.org")
    assert known
    assert dapr.events[0].question == 1
    (made,) = view.decisions
    assert (made.state, made.refund, made.note) == (DecisionState.ACCEPTED, PROPOSED, "well said, [e-mail]")
    assert made.words == "accepted: 59.90 EUR for order O-1"
    assert made.reason == "above_limit"
    assert "example" not in dapr.events[0].model_dump_json(), "no note travels into the history"


def test_a_refused_decision_says_why_and_what_the_limit_is(service: TaskService, dapr: Waiting) -> None:
    def refused(decision: Decision) -> Standing:
        figures = {"most": "59.90", "currency": "CHF"}
        told = settled(decision, DecisionState.REFUSED, "above_refundable", **figures)
        return Standing(
            status=TaskStatus.WAITING, at=TURN, waiting_for="above_refundable", question=asked(2), decisions=(told,)
        )

    dapr.answer = refused
    with pytest.raises(DecisionRefused, match=r"9,999\.00 CHF is more than order O-1 has left: 59\.90 CHF at most"):
        service.decide(TICKET.task_id, approve(refund=REFUND))
    (made,) = service.get(TICKET.task_id).decisions
    assert (made.by, made.refund, made.state, made.code) == ("kim", REFUND, DecisionState.REFUSED, "above_refundable")


def test_a_decision_that_the_task_has_not_taken_yet_is_neither(service: TaskService, dapr: Waiting) -> None:
    view, known = service.decide(TICKET.task_id, approve())
    assert not known
    assert view.decisions[0].state is DecisionState.HANDED_OVER
    dapr.run = accepted(dapr.events[0])
    assert told(service) == [("kim", "approve", DecisionState.ACCEPTED, "")], "whoever looks later sees what came of it"


def test_of_two_who_decide_at_once_one_is_too_late(service: TaskService, dapr: Waiting) -> None:
    service.decide(TICKET.task_id, approve("ann"))
    dapr.answer = lambda _: accepted(dapr.events[0])
    with pytest.raises(TooLate, match="answered before"):
        service.decide(TICKET.task_id, Decision(verdict="reject", by="ben"))
    assert told(service) == [
        ("ann", "approve", DecisionState.ACCEPTED, ""),
        ("ben", "reject", DecisionState.TOO_LATE, "answered_before"),
    ]


def test_a_decision_for_a_task_that_was_ended_meanwhile_is_too_late(service: TaskService, dapr: Waiting) -> None:
    dapr.answer = lambda _: Standing(status=TaskStatus.TERMINATED, at=TURN)
    with pytest.raises(TooLate, match="had ended before"):
        service.decide(TICKET.task_id, approve())
    assert told(service) == [("kim", "approve", DecisionState.TOO_LATE, "ended")]


@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.PARKED, TaskStatus.PAUSED, TaskStatus.COMPLETED])
def test_an_attempt_that_comes_at_the_wrong_time_is_noted(
    service: TaskService, dapr: Waiting, status: TaskStatus
) -> None:
    dapr.run = Standing(status=status, at=TURN)
    with pytest.raises(NotWaiting, match="only a waiting task accepts a decision"):
        service.decide(TICKET.task_id, approve(refund=REFUND))
    assert told(service) == [("kim", "approve", DecisionState.REFUSED, "not_waiting")]
    assert service.get(TICKET.task_id).decisions[0].refund == REFUND, "what was tried is known"
    assert dapr.events == []


def test_who_comes_second_learns_who_was_first(service: TaskService, dapr: Waiting) -> None:
    dapr.answer = accepted
    service.decide(TICKET.task_id, approve("ann"))
    with pytest.raises(NotWaiting, match="ann has sent `approve` before"):
        service.decide(TICKET.task_id, approve("ben"))


def test_an_approval_of_nothing_is_refused_and_noted(service: TaskService, dapr: Waiting) -> None:
    dapr.run = Standing(status=TaskStatus.WAITING, at=TURN, waiting_for="no_draft", question=asked(1))
    with pytest.raises(DecisionRefused, match="proposes no refund"):
        service.decide(TICKET.task_id, approve())
    assert told(service) == [("kim", "approve", DecisionState.REFUSED, "refund_missing")]


def test_who_may_not_decide_is_noted_but_not_without_end(service: TaskService) -> None:
    for _ in range(120):
        service.note_denied(TICKET.task_id, approve("mallory"))
    assert told(service) == [("mallory", "approve", DecisionState.REFUSED, "no_role")] * 100


def test_a_decision_whose_sidecar_does_not_answer_is_in_the_trail(service: TaskService, dapr: Waiting) -> None:
    dapr.failure = Unreachable("away")
    with pytest.raises(Unreachable):
        service.decide(TICKET.task_id, approve())
    assert told(service) == [("kim", "approve", DecisionState.HANDED_OVER, "")]


def test_a_run_that_dapr_gave_up_and_that_is_begun_again_has_not_failed(
    tickets: Tickets, standings: Standings, trail: Decisions, dapr: Waiting
) -> None:
    hopeful = ["its words"]
    service = TaskService(
        *(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None),
        is_restarted=lambda *asked: asked in [(TICKET.task_id, each, TURN) for each in hopeful],
    )
    service.submit(TICKET)
    dapr.run = Standing(status=TaskStatus.FAILED, at=TURN, error="its words")
    view = service.get(TICKET.task_id)
    assert (view.status, view.error) == (TaskStatus.RUNNING, None)
    assert "being restarted" in (view.caveat or "")
    with pytest.raises(Unreachable, match="being restarted"):
        service.pause(TICKET.task_id)
    hopeful.clear()
    assert service.get(TICKET.task_id).status is TaskStatus.FAILED


class Away(WorkflowClient):
    """A sidecar that answers as it is told: each call costs what is left of its time, or is taken."""

    def __init__(self) -> None:
        self.away = True
        self.begun: list[str] = []
        self.given: list[float] = []

    def get(self, task_id: str) -> Standing | None:
        """What it has begun."""
        return Standing(status=TaskStatus.RUNNING, at=now()) if task_id in self.begun else None

    def start(self, task: TaskInput) -> None:
        """Not while it is away."""
        self.given.append(remaining(60))
        if self.away:
            raise Silence("nobody answers")
        self.begun.append(task.task_id)


class Slow(Away):
    """A sidecar that takes all the time that it is given, and gives no answer."""

    def start(self, task: TaskInput) -> None:
        """Stands still."""
        time.sleep(remaining(60))
        super().start(task)


def test_the_ledger_has_time_of_its_own_to_say_what_was_accepted_when_the_engine_took_all_of_it(
    tickets: Tickets, standings: Standings, trail: Decisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = TaskService(tickets, standings, Slow(), policy.load(Path("config/policy.yaml")), trail, lambda *_: None)
    times: list[float] = []
    read = standings.get

    def timed(task_id: str) -> ListedTask:
        times.append(remaining(60))
        return read(task_id)

    monkeypatch.setattr(standings, "get", timed)
    assert service.submit(TICKET)[1] is Intake.LATER
    assert times == [60], "a PostgreSQL ledger gives up at once where no time is left, and what was accepted is refused"


def test_a_ticket_is_accepted_while_the_engine_is_away_and_started_later(
    tickets: Tickets, standings: Standings, trail: Decisions
) -> None:
    dapr = Away()
    service = TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None)
    view, intake = service.submit(TICKET)
    assert (view.task_id, view.status, intake) == ("bench:crowd", TaskStatus.RUNNING, Intake.LATER)
    assert service.submit(TICKET)[1] is Intake.LATER, "the same again is as welcome"
    assert service.someone_waits.is_set()
    assert max(dapr.given) <= 1.0, "whoever sends a ticket is not made to wait"
    with pytest.raises(Silence):
        service.start_waiting()
    dapr.away = False
    assert service.start_waiting() == 1
    assert dapr.begun == ["bench:crowd"]
    assert service.submit(TICKET)[1] is Intake.KNOWN


def test_tickets_that_wait_are_started_in_order_of_arrival_and_one_that_cannot_be_holds_up_no_other(
    tickets: Tickets, standings: Standings, trail: Decisions
) -> None:
    dapr = Away()
    service = TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None)
    for number in range(5):
        service.submit(TICKET.model_copy(update={"ticket_id": f"T-{number}"}))
    dapr.away = False
    assert service.start_waiting(2) == 2
    assert sorted(dapr.begun) == ["bench:T-0", "bench:T-1"]
    start = dapr.start

    def picky(task: TaskInput) -> None:
        if task.ticket_id == "T-2":
            raise HistoryTampered(task.task_id, "changed")
        start(task)

    dapr.start = picky  # type: ignore[method-assign]
    assert service.start_waiting() >= 2
    assert sorted(dapr.begun) == ["bench:T-0", "bench:T-1", "bench:T-3", "bench:T-4"]


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [("pause", TaskStatus.RUNNING, TaskStatus.PAUSED), ("resume", TaskStatus.PARKED, TaskStatus.RUNNING)],
)
def test_steering_answers_with_what_became_of_it(
    tickets: Tickets, standings: Standings, trail: Decisions, verb: str, before: TaskStatus, after: TaskStatus
) -> None:
    """Dapr takes the word at once; the task hears it a moment later."""
    looks: list[TaskStatus] = []

    class Slow(Dapr):
        told_at = 0

        def get(self, task_id: str) -> Standing | None:
            looks.append(after if self.told_at and len(looks) > self.told_at + 2 else before)
            return Standing(status=looks[-1], at=TURN)

        def _heard(self, task_id: str) -> None:
            self.told_at = len(looks)

        pause = unpark = _heard

    rules = policy.load(Path("config/policy.yaml"))
    service = TaskService(tickets, standings, Slow(), rules, trail, lambda *_: None, pause=lambda _seconds: None)
    service.submit(TICKET)
    assert getattr(service, verb)(TICKET.task_id).status is after


def test_a_paused_task_cannot_be_paused_again(tickets: Tickets, standings: Standings, trail: Decisions) -> None:
    dapr = Dapr()
    service = TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None)
    service.submit(TICKET)
    dapr.get = lambda task_id: Standing(status=TaskStatus.PAUSED, at=now())  # type: ignore[method-assign]
    with pytest.raises(NotWaiting, match="bench:crowd is paused already; `task resume`"):
        service.pause("bench:crowd")


def test_an_answer_to_a_question_that_was_answered_before_decides_nothing(service: TaskService, dapr: Waiting) -> None:
    with pytest.raises(TooLate, match="answered before"):
        service.decide(TICKET.task_id, approve().model_copy(update={"question": 7}))
    assert dapr.events == []
    assert told(service) == [("kim", "approve", DecisionState.REFUSED, "answered_before")]


def test_the_inbox_has_what_waits_with_the_customers_words(
    service: TaskService, dapr: Waiting, standings: Standings
) -> None:
    standings.report(TICKET.task_id, dapr.run).result()
    found = service.inbox(None, None, None, None, 10, None)
    (case,) = found.cases
    assert (case.task.question, case.task.proposed_refund) == (asked(1), PROPOSED)
    assert (case.ticket.customer_id, case.ticket.subject, case.ticket.text) == ("load-1", "s", "t")
    assert (found.total, found.reasons, found.tenants) == (1, {"above_limit": 1}, {"bench": 1})
    assert service.inbox(None, "acme", None, None, 10, None).total == 0
    assert service.inbox(frozenset({"acme"}), None, None, None, 10, None).tenants == {}
