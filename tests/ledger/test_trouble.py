"""A ledger that is full, read-only, locked, damaged or away is reported with a remedy; a bug of ours is not."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import LedgerUnavailable
from app.domain.models import Intake, TaskView, Ticket
from app.ledger.store import database, writer
from app.ledger.store.database import trouble
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.web.factory import create_app
from tests.live import until
from tests.servers import PostgresServer, ensure_installed
from tests.web.fakes import FakeTaskService, make_access, make_ticket, secret

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
Break = Callable[[Engine, Path], None]


def full(engine: Engine, path: Path) -> None:
    """Limits the file's size for all future connections."""
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(engine, "connect", limit)
    engine.dispose()


def read_only(engine: Engine, path: Path) -> None:
    """Makes all future connections read-only."""

    def forbid(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    event.listen(engine, "connect", forbid)
    engine.dispose()


def damaged(engine: Engine, path: Path) -> None:
    """Overwrites the file's content in place."""
    engine.dispose()
    for each in (path, path.with_name(f"{path.name}-wal")):
        if each.exists():
            with each.open("r+b") as file:
                file.write(os.urandom(each.stat().st_size))


def locked(engine: Engine, path: Path) -> None:
    """Another process holds the write lock; the busy time-out is short."""
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    HOLDERS.append(other)

    def hurry(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=50")

    event.listen(engine, "connect", hurry)
    engine.dispose()


HOLDERS: list[sqlite3.Connection] = []
BREAKS: dict[str, Break] = {
    "ledger_disk_full": full,
    "ledger_read_only": read_only,
    "ledger_damaged": damaged,
    "ledger_locked": locked,
}


class Keeping(FakeTaskService):
    """A service that stores tickets as the real one does."""

    def __init__(self, tickets: Tickets) -> None:
        super().__init__()
        self._kept = tickets

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """Raises the ledger's error."""
        self._kept.accept(ticket)
        return super().submit(ticket)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the ledger's file."""
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """A ledger with a ticket in it."""
    opened = database.connect(f"sqlite:///{path}")
    yield opened
    opened.dispose()
    while HOLDERS:
        HOLDERS.pop().close()


def send(engine: Engine, ticket: Ticket) -> tuple[int, dict[str, str], dict[str, object]]:
    """Sends a ticket over the API to a service on that ledger: status, headers and body."""
    pen = Writer(engine)
    client = create_app(Keeping(Tickets(engine, pen, lambda: NOON)), make_access(), version="1").test_client()
    answer = client.post(
        "/tasks",
        data=ticket.model_dump_json(),
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret('root')}"},
    )
    pen.close()
    return answer.status_code, dict(answer.headers), answer.get_json()


@pytest.mark.parametrize("code", BREAKS)
def test_the_answer_names_the_cause_and_when_to_come_back(
    engine: Engine, path: Path, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(engine, make_ticket("T-0"))[0] == 201
    BREAKS[code](engine, path)
    status, headers, problem = send(engine, make_ticket("T-1", text="a customer's secret " * 3_000))
    assert (status, problem["code"]) == (503, code), problem
    assert problem["title"] == "Ledger unavailable"
    assert int(headers["Retry-After"]) > 0
    (logged,) = [record.getMessage() for record in caplog.records if record.name == "app.web.api.problems"]
    assert logged == f"POST /tasks: {problem['detail']} ({code})"
    assert "customer's secret" not in caplog.text


def test_a_request_is_not_held_open_for_as_long_as_sqlite_would_wait(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SOON_SECONDS", 0.2)
    holder = sqlite3.connect(path)
    holder.execute("BEGIN IMMEDIATE")
    pen = Writer(engine)
    tickets = Tickets(engine, pen, lambda: NOON)
    begun = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="send the same request again") as error:
        tickets.accept(make_ticket("T-1"))
    assert error.value.code == "ledger_locked"
    assert time.monotonic() - begun < 20, "and not the thirty seconds of the file's own patience"
    holder.close()
    until(lambda: tickets.accept(make_ticket("T-1"))[1] is False, "it was kept after all")
    pen.close()


def test_a_fault_of_ours_is_no_trouble_of_the_ledger(engine: Engine) -> None:
    for statement in ("SELECT * FROM nowhere", "SELEKT 1"):
        with engine.connect() as connection, pytest.raises(SQLAlchemyError) as error:
            connection.execute(text(statement))
        assert trouble(error.value) is None
    assert trouble(ValueError("something else")) is None


def test_a_server_that_was_stopped_or_refuses_says_so() -> None:
    ensure_installed()
    with PostgresServer() as server:
        engine = database.connect(server.create_database("trouble"))
        with engine.connect() as connection, pytest.raises(SQLAlchemyError) as refused:
            connection.execute(text("SET TRANSACTION READ ONLY; CREATE TABLE more (n int)"))
        with engine.connect() as connection, pytest.raises(SQLAlchemyError) as wrong:
            connection.execute(text("SELECT * FROM nowhere"))
    told = trouble(refused.value)
    assert told is not None
    assert told.code == "ledger_read_only"
    assert trouble(wrong.value) is None
    status, headers, problem = send(engine, make_ticket("T-1"))
    assert (status, problem["code"]) == (503, "ledger_away")
    assert "Retry-After" in headers
    engine.dispose()
