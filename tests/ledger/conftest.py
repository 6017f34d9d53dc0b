"""Real ledgers, empty and up to date: SQLite files and PostgreSQL databases, each test's own."""

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
    """Makes databases. One with tables is a copy of one that the migrations made once, which is quicker."""

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
        """The server, started when it is first asked for."""
        if self._postgres is None:
            ensure_installed()
            self._postgres = PostgresServer()
            self._postgres.start()
        return self._postgres

    def remove(self) -> None:
        """Ends the server; nothing of it is worth the time that an orderly end takes."""
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
    """Databases of both kinds."""
    made = Databases(tmp_path_factory.mktemp("ledgers"))
    yield made
    made.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each test is run with both."""
    return str(request.param)


@pytest.fixture
def engine(databases: Databases, kind: str) -> Iterator[Engine]:
    """An open ledger with nothing in it."""
    opened = database.connect(databases.migrated(kind))
    yield opened
    opened.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    """The same, with the methods that tests want."""
    return Ledger(engine)


@pytest.fixture
def sqlite_engine(databases: Databases) -> Iterator[Engine]:
    """An open SQLite ledger, for tests of what is the same with any database."""
    opened = database.connect(databases.migrated("sqlite"))
    yield opened
    opened.dispose()
