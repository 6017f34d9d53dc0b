"""One ticket is one run, whoever else sends it at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app import policy
from app.desk import TaskDesk
from app.ledger import database
from app.ledger.tickets import Tickets
from app.ledger.writer import Writer
from app.models import TaskStatus, Ticket
from app.runs import Run, Runs
from app.steps import TaskInput

TICKET = Ticket(tenant="bench", ticket_id="crowd", customer_id="load-1", subject="s", text="t")
# How long one of them stands still; a desk that lets the other in meanwhile begins a second run.
STANDSTILL_SECONDS = 0.3


class Dapr(Runs):
    """As daprd: an instance that has completed is wiped and run again. A task takes no time here."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.asked = threading.Event()
        self.other_is_through = threading.Event()

    def get(self, task_id: str) -> Run | None:
        """Whether there is one; the late thread stands still after it has asked."""
        found = Run(TaskStatus.COMPLETED, "now") if task_id in self.begun else None
        if threading.current_thread().name == "late" and found is None:
            self.asked.set()
            self.other_is_through.wait(STANDSTILL_SECONDS)
        return found

    def start(self, task: TaskInput) -> None:
        """Begins a run."""
        self.begun.append(task.task_id)


@pytest.fixture
def tickets(tmp_path: Path) -> Iterator[Tickets]:
    """Intake's memory."""
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    writer = Writer(engine)
    yield Tickets(engine, writer, lambda: datetime(2026, 11, 22, tzinfo=UTC))
    writer.close()
    engine.dispose()


def test_two_that_send_a_ticket_at_once_begin_one_run(tickets: Tickets) -> None:
    dapr = Dapr()
    desk = TaskDesk(tickets, dapr, policy.load(Path("config/policy.yaml")))
    late = threading.Thread(target=desk.submit, args=(TICKET,), name="late")
    late.start()
    assert dapr.asked.wait(60)
    desk.submit(TICKET)
    dapr.other_is_through.set()
    late.join()
    assert dapr.begun == ["bench:crowd"]
