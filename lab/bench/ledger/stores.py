"""The databases that are measured: a SQLite file, a throw-away PostgreSQL; their sizes, and their data cooled."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app.ledger.store.database import connect
from tests.servers import PostgresServer

# What the record takes is one thing, what it is made from is another.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "record": ("tasks", "steps", "attempts", "pauses", "charges", "prices", "price_books"),
    "daily sums": ("daily_costs",),
    "journal": ("model_calls",),
    "tickets and replies": ("tickets", "replies"),
}
# Pages times their size: dbstat's own sum of bytes overflows beyond 2 GiB.
_PAGES = """
    SELECT coalesce(s.tbl_name, d.name), sum(d.pageno) * (SELECT page_size FROM pragma_page_size) FROM dbstat AS d
    LEFT JOIN sqlite_master AS s ON s.name = d.name WHERE d.aggregate = TRUE GROUP BY 1
"""
_RELATIONS = """
    SELECT relname, pg_total_relation_size(oid) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


class Database(StrEnum):
    """The kinds of database."""

    SQLITE = "sqlite"
    POSTGRES = "postgresql"


class Store(Protocol):
    """A database for one size."""

    url: str
    version: str

    def settle(self) -> None:
        """Does what a database does by itself in the course of a year, so that no figure depends on when it does."""

    def sizes(self) -> dict[str, int]:
        """Bytes by table, indexes included."""

    def cool(self) -> None:
        """Takes its data out of memory, its own and the operating system's."""


class SqliteStore:
    """A file in a folder of its own."""

    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"sqlite:///{folder / 'ledger.sqlite'}"

    def settle(self) -> None:
        """Moves the log into the file."""
        with _open(self.url) as engine, engine.connect() as connection:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def sizes(self) -> dict[str, int]:
        """By pages, where this SQLite counts them; else of the whole file."""
        with _open(self.url) as engine, engine.connect() as connection:
            try:
                return {name: int(size) for name, size in connection.execute(text(_PAGES))}
            except OperationalError:  # built without dbstat
                return {"file": (self._folder / "ledger.sqlite").stat().st_size}

    def cool(self) -> None:
        """Nobody has it open between two measurements."""
        _forget(self._folder)


class PostgresStore:
    """A database of a server that was started for it."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.version = f"PostgreSQL {server.version()}"
        server.create_database("ledger")
        self.url = server.url("ledger", "postgresql+psycopg")

    def settle(self) -> None:
        """What autovacuum does."""
        self._server.run_sql("VACUUM (ANALYZE)", "ledger")
        self._server.run_sql("CHECKPOINT", "ledger")

    def sizes(self) -> dict[str, int]:
        """With indexes and texts that are kept apart."""
        with _open(self.url) as engine, engine.connect() as connection:
            return {name: int(size) for name, size in connection.execute(text(_RELATIONS))}

    def cool(self) -> None:
        """Its own memory goes with the server."""
        self._server.stop()
        _forget(self._server.data)
        self._server.start()


@contextmanager
def opened(kind: Database, folder: Path | None = None) -> Iterator[Store]:
    """An empty database; its data are deleted afterwards. `folder` is where a file goes."""
    if kind is Database.POSTGRES:
        with PostgresServer() as server:
            yield PostgresStore(server)
        return
    place = Path(tempfile.mkdtemp(prefix="bench-ledger-", dir=folder))
    try:
        yield SqliteStore(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def grouped(sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes by group; what is in none is named for itself."""
    group_of = {table: group for group, tables in GROUPS.items() for table in tables}
    found: dict[str, int] = {}
    for table, size in sizes.items():
        group = group_of.get(table, "other")
        found[group] = found.get(group, 0) + size
    return found


@contextmanager
def _open(url: str) -> Iterator[Engine]:
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _forget(folder: Path) -> None:
    """Asks the operating system to drop what it holds of these files; written pages only, so they are written first."""
    for file in filter(Path.is_file, folder.rglob("*")):
        opened_file = os.open(file, os.O_RDONLY)
        try:
            os.fsync(opened_file)
            os.posix_fadvise(opened_file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(opened_file)
