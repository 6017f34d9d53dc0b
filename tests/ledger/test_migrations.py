"""Migrations create exactly the tables that the code defines: once, even if several processes start, or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, inspect, text

from app.domain.errors import ConfigurationError
from app.ledger.store import database, migrations, tables
from app.ledger.store.tables import METADATA
from tests.ledger import apart
from tests.ledger.conftest import Databases

AT_ONCE = 6


@pytest.fixture
def url(databases: Databases, kind: str) -> str:
    """A database without tables."""
    return databases.empty(kind)


@pytest.fixture
def opened(url: str) -> Iterator[Engine]:
    """The database after it was opened for the first time."""
    engine = database.connect(url)
    yield engine
    engine.dispose()


def execute(url: str, *statements: str) -> list[Any]:
    """Runs statements on another connection; returns the rows of the last one."""
    engine = create_engine(url)
    with engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        rows = list(results[-1]) if results[-1].returns_rows else []
    engine.dispose()
    return rows


def differences(engine: Engine) -> list[Any]:
    """The operations that a migration would still have to do."""
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))


def test_all_tables_are_in_one_catalogue() -> None:
    assert {tables.TASKS.metadata, tables.TICKETS.metadata} == {METADATA}


def test_the_head_is_the_last_step() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.HEAD]


def test_an_empty_database_gets_exactly_the_tables_that_the_code_knows(opened: Engine) -> None:
    assert differences(opened) == [], "write a step that does this, and raise HEAD"
    assert set(inspect(opened).get_table_names()) == {*METADATA.tables, "alembic_version"}


def test_a_missing_column_would_be_noticed(opened: Engine, url: str) -> None:
    execute(url, "ALTER TABLE workers DROP COLUMN seen_at")
    assert [difference[0] for difference in differences(opened)] == ["add_column"]


def test_rows_are_looked_for_by_indexes_that_hold_few_of_them(opened: Engine, kind: str) -> None:
    source = "sqlite_master WHERE type = 'index'" if kind == "sqlite" else "pg_indexes WHERE schemaname = 'public'"
    column = "sql" if kind == "sqlite" else "indexdef"
    with opened.connect() as connection:
        found = [str(row[0]) for row in connection.execute(text(f"SELECT {column} FROM {source}"))]  # noqa: S608
    partial = sorted(definition.partition(" WHERE ")[2] for definition in found if " WHERE " in definition)
    expected = {
        "sqlite": ["recorded IS 0", "started IS 0", "state = 'settled'"],
        "postgresql": ["(recorded IS FALSE)", "(started IS FALSE)", "((state)::text = 'settled'::text)"],
    }[kind]
    assert partial == sorted(expected)


def test_opening_it_again_changes_nothing_and_asks_little(opened: Engine, url: str) -> None:
    asked: list[str] = []
    engine = create_engine(url)
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    migrations.upgrade(engine)
    engine.dispose()
    assert not [statement for statement in asked if not statement.lstrip().startswith(("SELECT", "PRAGMA"))]
    assert len(asked) < 12
    assert differences(opened) == []


def test_what_is_in_it_stays(opened: Engine, url: str) -> None:
    execute(url, "INSERT INTO workers (worker, started_at, seen_at) VALUES ('w', 1, 2)")
    database.connect(url).dispose()
    assert execute(url, "SELECT worker, started_at, seen_at FROM workers") == [("w", 1, 2)]


def test_processes_that_open_an_empty_database_at_once_all_can(url: str) -> None:
    begin = apart.context().Barrier(AT_ONCE)
    processes = [apart.start(apart.open_ledger, url, begin) for _ in range(AT_ONCE)]
    assert [apart.exit_code(process) for process in processes] == [0] * AT_ONCE
    engine = database.connect(url)
    assert differences(engine) == []
    engine.dispose()
    assert execute(url, "SELECT version_num FROM alembic_version") == [(migrations.HEAD,)]


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another process that is changing a new file."""
    with contextlib.closing(sqlite3.connect(tmp_path / "new", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_who_is_changing_a_new_file_is_waited_for(
    changing: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def end_the_change(seconds: float) -> None:
        waits.append(seconds)
        changing.execute("ROLLBACK")

    own_time = SimpleNamespace(monotonic=time.monotonic, sleep=end_the_change)
    monkeypatch.setattr(database, "time", own_time)  # other threads are not affected
    database.connect(f"sqlite:///{tmp_path / 'new'}").dispose()
    assert len(waits) == 1
    assert execute(f"sqlite:///{tmp_path / 'new'}", "PRAGMA journal_mode") == [("wal",)]


def test_who_does_not_end_changing_it_is_not_waited_for_for_ever(
    changing: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    with pytest.raises(ConfigurationError, match="the ledger stayed locked"):
        database.connect(f"sqlite:///{tmp_path / 'new'}")
    assert changing.in_transaction


def test_a_ledger_of_a_newer_version_is_left_alone(opened: Engine, url: str) -> None:
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match=r"have another version: .*9999.*; use the version of the program"):
        database.connect(url)
    assert differences(opened) == []
    assert execute(url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_tables_without_versions_are_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE tickets (sequence INTEGER)", "INSERT INTO tickets VALUES (7)")
    with pytest.raises(ConfigurationError, match="move the ledger away"):
        database.connect(url)
    assert execute(url, "SELECT * FROM tickets") == [(7,)]


def test_a_step_that_fails_leaves_nothing_half_done(url: str, kind: str) -> None:
    """Another program has a table with the name of our last one."""
    execute(url, "CREATE TABLE workers (name INTEGER)")
    with pytest.raises(ConfigurationError, match="workers"):
        database.connect(url)
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == ["workers"]
    engine.dispose()


def migrate(url: str, revision: str) -> None:
    """A ledger of an older version."""
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def epoch(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
