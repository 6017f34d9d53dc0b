"""A ledger's file is deleted, moved or replaced while it is in use: no write is accepted that would be lost."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from app.domain.errors import LedgerGone
from app.ledger.store import database
from app.ledger.store.standings import Standings
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.worker.execution_log import Heartbeat
from tests.makers import ticket

LOST: dict[str, Callable[[Path], object]] = {
    "deleted": os.unlink,
    "moved": lambda path: path.rename(path.with_suffix(".away")),
    "replaced": lambda path: shutil.copy(path, path.with_suffix(".older")) and path.with_suffix(".older").replace(path),
}


def now() -> datetime:
    return datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the ledger."""
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """The open ledger."""
    engine = database.connect(f"sqlite:///{path}")
    yield engine
    engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    """Its writer."""
    writer = Writer(engine)
    yield writer
    writer.close()


@pytest.fixture(params=list(LOST))
def lose(request: pytest.FixtureRequest, path: Path) -> Callable[[], object]:
    """Deletes, moves or replaces the file."""
    return lambda: LOST[request.param](path)


def test_a_ticket_is_not_accepted_into_nothing(engine: Engine, writer: Writer, lose: Callable[[], object]) -> None:
    tickets = Tickets(engine, writer, now)
    tickets.accept(ticket())
    lose()
    for _ in range(2):
        with pytest.raises(LedgerGone, match="restart") as error:
            tickets.accept(ticket(ticket_id="T-2"))
        assert error.value.status == 503
    with pytest.raises(LedgerGone):
        Standings(engine, writer, now).page(None, None, 0, 10)


def test_a_model_call_is_not_paid_into_nothing(writer: Writer, lose: Callable[[], object]) -> None:
    def operation(connection: Connection) -> int:
        return connection.execute(text("UPDATE workers SET seen_at = 1")).rowcount

    assert asyncio.run(writer.write(operation)) == 0
    lose()
    with pytest.raises(LedgerGone):
        asyncio.run(writer.write(operation))


def test_who_opens_it_next_finds_what_is_there(path: Path, engine: Engine, writer: Writer) -> None:
    Tickets(engine, writer, now).accept(ticket())
    path.rename(path.with_suffix(".away"))
    again = database.connect(f"sqlite:///{path}")
    with again.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM tickets")).scalar() == 0
    again.dispose()


def test_a_worker_lives_on_and_ends_in_order(
    writer: Writer, lose: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    life = Heartbeat(writer, now)
    life.begin()
    lose()
    with pytest.raises(LedgerGone):
        life.beat()
    life.end()
    assert "was deleted, moved or replaced" in caplog.text


@pytest.mark.parametrize("beside_a_writer", [False, True], ids=["a copy", "beside the agent"])
def test_a_ledger_that_may_only_be_read_is_read_and_left_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, beside_a_writer: bool
) -> None:
    """A ledger on a read-only disk; simulated, since tests may run as a user who may write everywhere."""
    engine = database.connect(f"sqlite:///{path}")
    writer = Writer(engine)
    tickets = Tickets(engine, writer, now)
    tickets.accept(ticket(ticket_id="T-1"))
    if not beside_a_writer:
        writer.close()
        engine.dispose()
    before = {file.name for file in path.parent.iterdir()}
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    reader = database.connect(f"sqlite:///{path}")
    with reader.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM tickets")).scalar() == 1
    with reader.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(text("DELETE FROM tickets"))
    reader.dispose()
    assert {file.name for file in path.parent.iterdir()} == before
    if beside_a_writer:
        writer.close()
        engine.dispose()
