"""The service between stores that disagree: a task is what Dapr says, or else what the ledger knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from app.config import policy
from app.domain.errors import HistoryTampered, NotWaiting, RefundAgentError, TaskNotFound, Unreachable
from app.domain.models import Decision, Intake, Outcome, TaskResult, TaskStatus, Ticket
from app.domain.standing import Standing
from app.ledger.store import database
from app.ledger.store.decision_log import Decisions
from app.ledger.store.standings import Standings
from app.ledger.store.tables import MODEL_CALLS, TICKETS
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.tasks.service import TaskService
from app.tasks.workflow_client import WorkflowClient
from app.workflow.steps import TaskInput
from tests.ledger.kit import write_journal
from tests.records import call_record

TICKET = Ticket(tenant="bench", ticket_id="crowd", customer_id="load-1", subject="s", text="t")
TASK = TICKET.task_id
NOW = datetime(2026, 11, 22, tzinfo=UTC)
WAITING = Standing(status=TaskStatus.WAITING, at=NOW, waiting_for="above_limit")
DONE = Standing(
    status=TaskStatus.COMPLETED,
    at=NOW + timedelta(seconds=1),
    result=TaskResult(outcome=Outcome.ANSWERED, category=None),
)


class Dapr(WorkflowClient):
    """What daprd says of the one task, and what it is told to do."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.steered: list[str] = []
        self.says: Standing | RefundAgentError | None = None

    def get(self, task_id: str) -> Standing | None:
        """What a test has it say."""
        if isinstance(self.says, RefundAgentError):
            raise self.says
        return self.says or (Standing(status=TaskStatus.RUNNING, at=NOW) if task_id in self.begun else None)

    def start(self, task: TaskInput) -> None:
        """Begins a run."""
        self.begun.append(task.task_id)

    def pause(self, task_id: str) -> None:
        """One way to steer."""
        self.steered.append(task_id)

    def terminate(self, task_id: str, reason: str) -> None:
        """The other way to steer."""
        self.steered.append(task_id)

    def lose(self) -> None:
        """The state store is another one."""
        self.begun.clear()
        self.says = None


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger."""
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield engine
    engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    """Its writer."""
    writer = Writer(engine)
    yield writer
    writer.close()


@pytest.fixture
def standings(engine: Engine, writer: Writer) -> Standings:
    """What the ledger knows of tasks."""
    return Standings(engine, writer, lambda: NOW)


@pytest.fixture
def dapr() -> Dapr:
    """It knows nothing yet."""
    return Dapr()


@pytest.fixture
def service(engine: Engine, writer: Writer, standings: Standings, dapr: Dapr) -> TaskService:
    """The service between both."""
    tickets = Tickets(engine, writer, lambda: NOW)
    trail = Decisions(engine, writer, lambda: NOW)
    return TaskService(tickets, standings, dapr, policy.load(Path("config/policy.yaml")), trail, lambda *_: None)


def submit(service: TaskService, writer: Writer) -> None:
    """Sends the ticket; its start is noted as well."""
    service.submit(TICKET)
    writer.run(lambda connection: None)


def make_final(engine: Engine) -> None:
    """The projector has recorded it for good."""
    with engine.begin() as connection:
        connection.execute(update(TICKETS).values(recorded=True))


def test_a_task_is_what_dapr_says(service: TaskService, dapr: Dapr) -> None:
    service.submit(TICKET)
    dapr.says = WAITING
    view = service.get(TASK)
    assert (view.status, view.waiting_for, view.caveat) == (TaskStatus.WAITING, "above_limit", None)


def test_what_the_worker_told_after_a_later_turn_is_newer_than_what_dapr_has_saved(
    service: TaskService, dapr: Dapr, standings: Standings
) -> None:
    service.submit(TICKET)
    dapr.says = WAITING
    standings.report(TASK, DONE).result()
    assert (service.get(TASK).status, service.get(TASK).result) == (TaskStatus.COMPLETED, DONE.result)


def test_lists_do_not_ask_dapr(service: TaskService, dapr: Dapr, standings: Standings) -> None:
    service.submit(TICKET)
    service.submit(TICKET.model_copy(update={"ticket_id": "other"}))
    standings.report(TASK, WAITING).result()
    dapr.says = Unreachable("away")
    assert [view.task_id for view in service.list(None, TaskStatus.WAITING, 10, None).tasks] == [TASK]
    assert [view.ticket_id for view in service.newest(None, 10, None).tasks] == ["other", "crowd"]
    page = service.list(None, None, 1, None)
    assert page.next_after is not None
    assert service.list(None, None, 1, page.next_after).next_after is None, "no cursor that leads to an empty page"


def test_a_completed_task_that_was_purged_stays_completed(
    service: TaskService, dapr: Dapr, standings: Standings, engine: Engine
) -> None:
    service.submit(TICKET)
    standings.report(TASK, DONE).result()
    make_final(engine)
    dapr.lose()
    view, intake = service.submit(TICKET)
    assert (view.status, view.result, view.caveat, intake) == (TaskStatus.COMPLETED, DONE.result, None, Intake.KNOWN)
    assert dapr.begun == [], "nothing starts"
    with pytest.raises(NotWaiting, match=r"has ended \(completed\)"):
        service.pause(TASK)
    with pytest.raises(NotWaiting, match=r"has ended \(completed\)"):
        service.terminate(TASK, "why")
    with pytest.raises(NotWaiting, match=r"has ended \(completed\); only a waiting task"):
        service.decide(TASK, Decision(verdict="reject", by="Jo"))


def test_a_task_that_dapr_lost_says_so_and_cannot_be_steered(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer
) -> None:
    submit(service, writer)
    standings.report(TASK, WAITING).result()
    dapr.lose()
    view = service.get(TASK)
    assert (view.status, view.waiting_for) == (TaskStatus.WAITING, "above_limit"), "as it was known last"
    assert view.caveat == f"not known to the workflow engine; `refund-agent task rerun {TASK}` restarts it"
    with pytest.raises(NotWaiting, match=r"last known: waiting.*not known to the workflow engine"):
        service.pause(TASK)


def test_a_ticket_that_is_sent_again_is_begun_again_where_dapr_lost_it(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer
) -> None:
    submit(service, writer)
    standings.report(TASK, WAITING).result()
    dapr.lose()
    view, intake = service.submit(TICKET)
    assert (dapr.begun, intake, view.caveat) == ([TASK], Intake.KNOWN, None)


@pytest.mark.parametrize("error", [Unreachable("the sidecar is away"), HistoryTampered(TASK, "digest mismatch")])
def test_a_task_that_dapr_cannot_tell_of_is_shown_as_it_was_known_last(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer, error: RefundAgentError
) -> None:
    submit(service, writer)
    standings.report(TASK, WAITING).result()
    dapr.says = error
    for view in (service.get(TASK), service.submit(TICKET)[0]):
        assert (view.status, view.caveat) == (TaskStatus.WAITING, str(error))
    with pytest.raises(type(error)):
        service.pause(TASK)
    assert dapr.steered == []


def test_a_task_that_is_not_known_at_all_is_not_found(service: TaskService) -> None:
    with pytest.raises(TaskNotFound):
        service.get("bench:nobody")


FAILED = Standing(status=TaskStatus.FAILED, at=NOW, error="non-deterministic")


def settled_call(engine: Engine) -> None:
    """What the run before has paid."""
    with engine.begin() as connection:
        write_journal(connection, [call_record("e-1", task_id=TASK)])


def call_states(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [(row.state, row.error) for row in connection.execute(select(MODEL_CALLS))]


@pytest.mark.parametrize("final", [False, True])
def test_a_task_that_failed_is_begun_again_and_what_it_paid_stays(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer, engine: Engine, final: bool
) -> None:
    submit(service, writer)
    settled_call(engine)
    standings.report(TASK, FAILED).result()
    if final:
        make_final(engine)
    dapr.begun.clear()
    dapr.says = FAILED
    service.rerun(TASK)
    dapr.says = WAITING.model_copy(update={"at": NOW + timedelta(seconds=9)})
    assert (dapr.begun, service.get(TASK).status) == ([TASK], TaskStatus.WAITING)
    (found,) = service.list(None, None, 10, None).tasks
    assert (found.status, found.error) == (TaskStatus.RUNNING, None)
    assert call_states(engine) == [("interrupted", "the run has ended (failed); the task was restarted")]


def test_a_task_that_dapr_lost_is_begun_again_and_what_it_paid_stays(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer, engine: Engine
) -> None:
    submit(service, writer)
    settled_call(engine)
    standings.report(TASK, WAITING).result()
    dapr.lose()
    view = service.rerun(TASK)
    assert (dapr.begun, view.status, view.caveat) == ([TASK], TaskStatus.RUNNING, None)
    ((state, error),) = call_states(engine)
    assert state == "interrupted"
    assert "lost the run" in error


def test_a_task_that_goes_on_or_is_completed_is_not_begun_again(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer
) -> None:
    submit(service, writer)
    dapr.begun.clear()
    dapr.says = WAITING
    with pytest.raises(NotWaiting, match="is waiting and continues"):
        service.rerun(TASK)
    dapr.says = Unreachable("away")
    with pytest.raises(Unreachable):
        service.rerun(TASK)
    standings.report(TASK, DONE).result()
    with pytest.raises(NotWaiting, match="is completed"):
        service.rerun(TASK)
    assert dapr.begun == []


def test_what_an_older_state_store_has_left_of_a_completed_task_can_be_ended(
    service: TaskService, dapr: Dapr, standings: Standings, writer: Writer, engine: Engine
) -> None:
    submit(service, writer)
    standings.report(TASK, DONE).result()
    make_final(engine)
    dapr.says = WAITING.model_copy(update={"at": NOW + timedelta(hours=1)})  # it has woken up, and waits again
    assert service.get(TASK).status is TaskStatus.COMPLETED
    assert service.terminate(TASK, "restored from a backup").status is TaskStatus.COMPLETED
    assert dapr.steered == [TASK]
    dapr.says = FAILED
    with pytest.raises(NotWaiting, match="has ended"):
        service.terminate(TASK, "twice")
    assert dapr.steered == [TASK]
