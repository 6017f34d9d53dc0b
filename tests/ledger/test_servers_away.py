"""A ledger on PostgreSQL that restarts, fails over, reports deadlocks, or is behind a pooler."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, event, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from app.config import policy
from app.domain.deadline import within
from app.domain.errors import ConfigurationError, StepFault, Unreachable
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.ledger.store.database import is_transient, trouble
from app.ledger.store.decision_log import Decisions
from app.ledger.store.migrations import HEAD
from app.ledger.store.standings import Standings
from app.ledger.store.tables import WORKERS
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.llm.call import Reserve
from app.llm.conversation import Answer
from app.llm.gateway import reported_or_estimated
from app.llm.journal import Journal, SettledCall
from app.pricing.charge_types import TokenUsage
from app.tasks.service import TaskService
from app.tasks.workflow_client import WorkflowClient
from app.web.factory import create_app
from app.web.server import WebServer
from app.worker.execution_log import Executions, StepAttempt
from app.workflow.activities.services import as_activity
from tests.cli.reading import ask
from tests.ledger.kit import Ledger, projected
from tests.ledger.stories import story
from tests.ledger.test_texts import call
from tests.live import until
from tests.makers import LOSSES, ticket
from tests.servers import PgBouncer, PostgresServer, ensure_installed
from tests.web.fakes import make_access, secret

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DRIVER = "postgresql+psycopg"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A separate server for this file, since it is restarted."""
    ensure_installed("pgbouncer")
    with PostgresServer() as server:
        yield server


@pytest.fixture
def name(postgres: PostgresServer) -> str:
    """An empty database."""
    made = f"away{next(numbers)}"
    postgres.create_database(made)
    return made


@pytest.fixture
def engine(postgres: PostgresServer, name: str) -> Iterator[Engine]:
    opened = database.connect(postgres.url(name, DRIVER))
    yield opened
    opened.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    opened = Writer(engine)
    yield opened
    opened.close()


def add(connection: Connection, worker: str) -> str:
    connection.execute(insert(WORKERS).values(worker=worker, started_at=NOON, seen_at=NOON))
    return worker


def workers(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.execute(select(WORKERS.c.worker)).scalars())


def test_a_server_that_restarts_is_waited_for(engine: Engine, writer: Writer, postgres: PostgresServer) -> None:
    writer.run(lambda connection: add(connection, "before"))
    postgres.kill()
    futures = [writer.submit(partial(add, worker=f"during-{n}"), 60) for n in range(3)]
    time.sleep(0.5)  # they were tried and failed
    assert not any(future.done() for future in futures)
    postgres.start()
    assert [future.result(60) for future in futures] == ["during-0", "during-1", "during-2"]
    assert workers(engine) == ["before", "during-0", "during-1", "during-2"]


def test_a_caller_without_patience_is_told_and_nothing_is_written(
    engine: Engine, writer: Writer, postgres: PostgresServer
) -> None:
    postgres.kill()
    try:
        with pytest.raises(OperationalError) as caught:
            writer.submit(lambda connection: add(connection, "late"), 0).result(60)
        assert is_transient(caught.value)
    finally:
        postgres.start()
    assert workers(engine) == []
    writer.run(lambda connection: add(connection, "next"))


def test_a_step_whose_ledger_is_away_is_tried_again_and_does_not_park() -> None:
    async def away(_context: Any, _question: Any) -> None:
        raise OperationalError("", {}, Exception("the connection is closed"))

    async def wrong(_context: Any, _question: Any) -> None:
        raise ProgrammingError("", {}, Exception("no such column"))

    class Context:
        workflow_id = "acme:T-1"

    with pytest.raises(Unreachable, match="the ledger's database does not answer"):
        asyncio.run(as_activity(away)(Context(), None))  # type: ignore[arg-type]
    with pytest.raises(StepFault, match="step wrong: ProgrammingError in wrong"):
        asyncio.run(as_activity(wrong)(Context(), None))  # type: ignore[arg-type]


def test_who_stands_in_each_others_way_goes_on(engine: Engine, writer: Writer) -> None:
    for each in ("a", "b"):
        writer.run(partial(add, worker=each))
    locked, go_on = threading.Event(), threading.Event()
    change = text("UPDATE workers SET stopped_at = 1 WHERE worker = :worker")

    def other() -> None:
        with engine.connect() as connection:
            connection.execute(
                text("SET LOCAL deadlock_timeout = '10s'")
            )  # so that the writer's transaction is the one that is cancelled
            connection.execute(change, {"worker": "b"})
            locked.set()
            assert go_on.wait(30)
            connection.execute(change, {"worker": "a"})
            connection.commit()

    tries = []

    def both(connection: Connection) -> int:
        tries.append(1)
        connection.execute(text("SET LOCAL deadlock_timeout = '100ms'"))
        connection.execute(change, {"worker": "a"})
        go_on.set()
        connection.execute(change, {"worker": "b"})
        return len(tries)

    thread = threading.Thread(target=other)
    thread.start()
    assert locked.wait(30)
    assert writer.submit(both, 60).result(60) == 2
    thread.join()


def test_a_server_that_became_a_standby_is_left_for_the_primary(
    engine: Engine, writer: Writer, postgres: PostgresServer, name: str
) -> None:
    writer.run(lambda connection: add(connection, "before"))
    postgres.run_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    engine.dispose()  # as after a failover: existing connections answer but cannot write
    with engine.connect() as connection:
        old = connection.connection.dbapi_connection
    future = writer.submit(lambda connection: add(connection, "after"), 60)
    time.sleep(0.5)
    assert not future.done()
    postgres.run_sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert future.result(60) == "after"
    assert workers(engine) == ["after", "before"]
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not old


def test_what_is_lost_at_its_commit_is_not_done_a_second_time(engine: Engine, writer: Writer) -> None:
    tries = []

    def once(connection: Connection) -> None:
        tries.append(1)
        add(connection, "once")

    def cut(connection: Connection) -> None:
        connection.connection.driver_connection.close()  # type: ignore[union-attr]

    event.listen(engine, "commit", cut)
    with pytest.raises(DBAPIError):
        writer.submit(once, 60).result(60)
    event.remove(engine, "commit", cut)
    assert len(tries) == 1


def test_who_closes_the_writer_does_not_wait_for_a_server(
    engine: Engine, writer: Writer, postgres: PostgresServer
) -> None:
    postgres.kill()
    try:
        future = writer.submit(lambda connection: add(connection, "never"), 3600)
        writer.close()
        assert isinstance(future.exception(), OperationalError)
    finally:
        postgres.start()


def test_a_server_that_never_answers_is_given_up_in_time(
    engine: Engine, writer: Writer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.store.writer._SILENT_SECONDS", 0.5)
    writer.run(lambda connection: add(connection, "before"))
    with engine.connect() as held, postgres.standing_still():
        begun = time.monotonic()
        with within(0.5), pytest.raises(OperationalError) as caught:
            held.execute(select(WORKERS.c.worker))
        known = trouble(caught.value)
        assert known
        assert known.code == "ledger_away"
        with pytest.raises(OperationalError) as caught:
            writer.submit(lambda connection: add(connection, "during"), 0).result(60)
        assert is_transient(caught.value)
        future = writer.submit(lambda connection: add(connection, "after"), 60)
        assert time.monotonic() - begun < 10
    assert future.result(60) == "after"
    assert workers(engine) == ["after", "before"]


def test_a_request_does_not_wait_for_a_server_and_health_not_at_all(
    engine: Engine, writer: Writer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.factory._REQUEST_SECONDS", 1.0)
    tickets, standings = Tickets(engine, writer, lambda: NOON), Standings(engine, writer, lambda: NOON)
    service = TaskService(
        tickets,
        standings,
        WorkflowClient.__new__(WorkflowClient),
        policy.load(Path("config/policy.yaml")),
        Decisions(engine, writer, lambda: NOON),
        lambda *_: None,
    )
    server = WebServer(create_app(service, make_access(), version="1"), port=0, threads=4)
    server.start()
    asking_as = {"Authorization": f"Bearer {secret('root')}"}

    def get(path: str) -> httpx.Response:
        return httpx.get(f"{server.url}{path}", headers=asking_as, trust_env=False, timeout=60)

    def ask() -> tuple[int, str]:
        answer = get("/tasks")
        return answer.status_code, answer.json().get("code", "")

    with ThreadPoolExecutor(8) as pool:
        assert ask() == (200, "")
        with postgres.standing_still():
            asking = [pool.submit(ask) for _ in range(8)]
            begun = time.monotonic()
            for _ in range(10):
                assert get("/healthz").status_code == 200
            taken = time.monotonic() - begun
            assert not all(each.done() for each in asking), "health was asked while they waited"
            assert {each.result() for each in asking} == {(503, "ledger_away")}
        until(lambda: ask() == (200, ""), "the list is there again")
    assert taken < 1.0
    assert server.stop(60)


def test_a_role_that_may_not_make_tables_is_told_what_to_grant(postgres: PostgresServer, name: str) -> None:
    postgres.run_sql(f"CREATE ROLE guest{name} LOGIN PASSWORD 'x'")
    url = f"{DRIVER}://guest{name}:x@127.0.0.1:{postgres.port}/{name}"
    with pytest.raises(ConfigurationError, match=r"permission denied for schema public.*grant its role CREATE") as told:
        database.connect(url)
    assert "guest" not in str(told.value)
    database.connect(postgres.url(name, DRIVER)).dispose()
    with pytest.raises(ConfigurationError, match=r"permission denied for table alembic_version.*grant its role"):
        database.connect(url)


def test_a_role_without_that_right_uses_what_the_owner_has_migrated(
    postgres: PostgresServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", postgres.url(name, DRIVER))
    for _ in range(2):
        assert ask("ledger", "migrate").stdout == f"the ledger's tables have version {HEAD}\n"
    guest = f"worker{name}"
    postgres.run_sql(f"CREATE ROLE {guest} LOGIN PASSWORD 'x'")
    grants = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {guest}"
    postgres.run_sql(f"{grants}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {guest}", name)
    engine = database.connect(f"{DRIVER}://{guest}:x@127.0.0.1:{postgres.port}/{name}")
    writer = Writer(engine)
    writer.submit(lambda connection: add(connection, "guest")).result(60)
    assert workers(engine) == ["guest"]
    writer.close()
    engine.dispose()


def test_a_standby_is_named(postgres: PostgresServer, name: str) -> None:
    postgres.run_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(ConfigurationError, match=r"read-only.*target_session_attrs=read-write"):
        database.connect(postgres.url(name, DRIVER))


@pytest.fixture
def pooled(postgres: PostgresServer, name: str) -> Iterator[Engine]:
    """A ledger behind a pooler that has two server connections."""
    with PgBouncer(postgres) as pooler:
        opened = database.connect(pooler.url(name, DRIVER))
        yield opened
        opened.dispose()


def in_a_crowd(work: Callable[[int], object], threads: int = 8, times: int = 10) -> None:
    """Many client connections share the pooler's two; each statement runs often enough to be prepared by default."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads * times)))


def test_intake_reading_and_journal_work_behind_a_pooler(pooled: Engine) -> None:
    writer = Writer(pooled)
    tickets, records = Tickets(pooled, writer, lambda: NOON), LedgerQueries(pooled)
    journal = Journal(writer, "w", lambda: NOON, LOSSES)
    executions = Executions(writer, "w", lambda: NOON)

    def work(number: int) -> None:
        sent = ticket(ticket_id=f"P-{number}")
        stored, created = tickets.accept(sent)
        assert created
        assert tickets.get(stored.task_id) == stored
        assert tickets.not_started(100)
        records.report()

    async def steps() -> None:
        for number in range(20):
            asked = call()
            async with executions.start(StepAttempt(asked.task_id, asked.execution_id, number, "classify")):
                begun = await journal.begin(asked, "llm", "", Reserve(1, 1))
                assert isinstance(begun, str)
                answer = Answer(
                    "x",
                    (),
                    "stop",
                    "m",
                    TokenUsage(input_tokens=5, cached_tokens=0, output_tokens=5, reasoning_tokens=0),
                )
                await journal.settle(begun, asked, answer, reported_or_estimated(answer, asked, ""), "")
                assert isinstance(await journal.begin(asked, "llm", "", Reserve(1, 1)), SettledCall)

    in_a_crowd(work)
    asyncio.run(steps())
    assert len(tickets.not_started(100)) == 80
    writer.close()


def test_records_charges_and_the_tax_are_read_behind_a_pooler(pooled: Engine) -> None:
    ledger = Ledger(pooled)
    told = [story(seed, task_id=f"acme:T-{seed}").end for seed in range(4)]
    for each in told * 2:
        ledger.keep(each)
    expected = sum(len(projected(each).charges) for each in told)
    in_a_crowd(lambda number: ledger.records.record(f"acme:T-{number % 4}"), times=3)
    assert sum(len(ledger.records.record(f"acme:T-{seed}").charges) for seed in range(4)) == expected
    assert sum(1 for _ in ledger.records.charges()) == expected
    ledger.records.failures()


def test_tables_are_made_behind_a_pooler_by_one_of_many(postgres: PostgresServer, name: str) -> None:
    with PgBouncer(postgres) as pooler, ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: database.connect(pooler.url(name, DRIVER)), range(4)))
        for each in opened:
            each.dispose()
