"""The writer thread: a caller that stops waiting does not end it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine, insert, select

from app.ledger.store.tables import WORKERS
from app.ledger.store.writer import Writer

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    """A writer."""
    writer = Writer(engine)
    yield writer
    writer.close()


def add(connection: Connection, name: str) -> str:
    connection.execute(insert(WORKERS).values(worker=name, started_at=NOON, seen_at=NOON))
    return name


def test_what_nobody_waits_for_any_more_is_written_and_the_next_as_well(engine: Engine, writer: Writer) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slowly(connection: Connection) -> str:
        entered.set()
        assert go_on.wait(10)
        return add(connection, "given-up")

    async def give_up() -> None:
        waiting = asyncio.wrap_future(writer.submit(slowly))
        await asyncio.to_thread(entered.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(give_up())
    go_on.set()
    assert writer.submit(lambda connection: add(connection, "next")).result(10) == "next"
    with engine.connect() as connection:
        assert set(connection.execute(select(WORKERS.c.worker)).scalars()) == {"given-up", "next"}


def test_a_failure_that_nobody_waits_for_ends_nothing(writer: Writer) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def fails(connection: Connection) -> str:
        entered.set()
        assert go_on.wait(10)
        raise ValueError("no")

    future = writer.submit(fails)
    assert entered.wait(10)
    assert future.cancel()
    go_on.set()
    assert writer.submit(lambda connection: add(connection, "next")).result(10) == "next"
