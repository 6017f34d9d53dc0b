"""Browser sessions survive a restart, expire, and their rows hold no secret."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.ledger.store.sessions import LIFETIME, Sessions
from app.ledger.store.tables import SESSIONS
from app.ledger.store.writer import Writer
from app.web import signin
from tests.ledger.kit import Ledger
from tests.makers import Clock

HOLDER = "f" * 64


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 22, 12, tzinfo=UTC))


@pytest.fixture
def writer(ledger: Ledger) -> Iterator[Writer]:
    writer = Writer(ledger.engine)
    yield writer
    writer.close()


def test_another_process_knows_the_session_until_it_ends(ledger: Ledger, writer: Writer, clock: Clock) -> None:
    session_id = Sessions(ledger.engine, writer, clock).begin(HOLDER)
    other = Sessions(ledger.engine, writer, clock)
    assert other.find(session_id) == HOLDER
    other.end(session_id)
    assert other.find(session_id) is None


def test_a_session_ends_after_its_time(ledger: Ledger, writer: Writer, clock: Clock) -> None:
    sessions = Sessions(ledger.engine, writer, clock)
    session_id = sessions.begin(HOLDER)
    clock.now += LIFETIME - timedelta(seconds=1)
    assert sessions.find(session_id) == HOLDER
    clock.now += timedelta(seconds=1)
    assert sessions.find(session_id) is None
    sessions.begin(HOLDER)
    with ledger.engine.connect() as connection:
        assert len(connection.execute(select(SESSIONS)).all()) == 1, "what is over is cleared away"
    assert signin.LIFETIME == LIFETIME, "the cookie lives as long"


def test_the_number_of_sessions_is_bounded(ledger: Ledger, writer: Writer, clock: Clock) -> None:
    sessions = Sessions(ledger.engine, writer, clock, most=2)
    ids = []
    for _ in range(3):
        ids.append(sessions.begin(HOLDER))
        clock.now += timedelta(seconds=1)
    assert [sessions.find(each) for each in ids] == [None, HOLDER, HOLDER]
    assert len(set(ids)) == 3


def test_what_is_kept_of_a_session_does_not_open_it(ledger: Ledger, writer: Writer, clock: Clock) -> None:
    sessions = Sessions(ledger.engine, writer, clock)
    session_id = sessions.begin(HOLDER)
    with ledger.engine.connect() as connection:
        (row,) = connection.execute(select(SESSIONS)).all()
    assert session_id not in str(row)
    assert [sessions.find(kept) for kept in (row.digest, row.holder, "", None, "\udcff")] == [None] * 5
