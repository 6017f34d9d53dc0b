"""Empty, migrated ledgers for tests: a separate SQLite file or PostgreSQL database for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.ledger.store import database
from tests.ledger.kit import Ledger
from tests.servers import PostgresServer, ensure_installed

DRIVER = "postgresql+psycopg"


class Databases:
    """Creates databases. One with tables is copied from a template, which is faster than migrating each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._postgres: PostgresServer | None = None
        self._migrated: set[str] = set()

    def empty(self, kind: str) -> str:
        """The URL of a database without tables."""
        self._made += 1
        name = f"ledger{self._made}"
        if kind == "sqlite":
            return f"sqlite:///{self._folder / name}.sqlite"
        self.postgres.create_database(name)
        return self.postgres.url(name, DRIVER)

    def migrated(self, kind: str) -> str:
        """The URL of a database with empty tables."""
        self._make_template(kind)
        self._made += 1
        name = f"ledger{self._made}"
        if kind == "sqlite":
            shutil.copy(self._folder / "template.sqlite", self._folder / f"{name}.sqlite")
            return f"sqlite:///{self._folder / name}.sqlite"
        self.postgres.run_sql(f'CREATE DATABASE "{name}" TEMPLATE "template"')
        return self.postgres.url(name, DRIVER)

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server, started on first use."""
        if self._postgres is None:
            ensure_installed()
            self._postgres = PostgresServer()
            self._postgres.start()
        return self._postgres

    def remove(self) -> None:
        """Kills the server, which is faster than an orderly stop, and removes its files."""
        if self._postgres is not None:
            self._postgres.kill()
            self._postgres.remove()

    def _make_template(self, kind: str) -> None:
        if kind in self._migrated:
            return
        self._migrated.add(kind)
        if kind == "sqlite":
            url = f"sqlite:///{self._folder / 'template'}.sqlite"
        else:
            self.postgres.create_database("template")
            url = self.postgres.url("template", DRIVER)
        database.connect(url).dispose()


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Creates databases of both kinds, for the whole session."""
    made = Databases(tmp_path_factory.mktemp("ledgers"))
    yield made
    made.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database; each test runs with both."""
    return str(request.param)


@pytest.fixture
def engine(databases: Databases, kind: str) -> Iterator[Engine]:
    """The engine of an empty ledger."""
    opened = database.connect(databases.migrated(kind))
    yield opened
    opened.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    """An empty ledger with helpers for tests."""
    return Ledger(engine)


@pytest.fixture
def sqlite_engine(databases: Databases) -> Iterator[Engine]:
    """The engine of an empty SQLite ledger, for tests that do not depend on the database."""
    opened = database.connect(databases.migrated("sqlite"))
    yield opened
    opened.dispose()
