"""The databases that are measured: a SQLite file and a temporary PostgreSQL server."""

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

# Groups of tables, to report the record's bytes apart from those of its sources.
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
    """A kind of database."""

    SQLITE = "sqlite"
    POSTGRES = "postgresql"


class Store(Protocol):
    """A database with its measures."""

    url: str
    version: str

    def settle(self) -> None:
        """Does the periodic work of the database now, so that no figure depends on when it happens."""

    def sizes(self) -> dict[str, int]:
        """Bytes by table, indexes included."""

    def cool(self) -> None:
        """Removes the data from the caches of database and operating system."""


class SqliteStore:
    """A SQLite file in a separate folder."""

    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"sqlite:///{folder / 'ledger.sqlite'}"

    def settle(self) -> None:
        """Moves the write-ahead log into the file."""
        with _open(self.url) as engine, engine.connect() as connection:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def sizes(self) -> dict[str, int]:
        """Bytes by table if this SQLite has dbstat, or of the whole file."""
        with _open(self.url) as engine, engine.connect() as connection:
            try:
                return {name: int(size) for name, size in connection.execute(text(_PAGES))}
            except OperationalError:  # built without dbstat
                return {"file": (self._folder / "ledger.sqlite").stat().st_size}

    def cool(self) -> None:
        """Drops the file from the operating system's cache; no process has it open now."""
        _drop_from_cache(self._folder)


class PostgresStore:
    """A database on a separate PostgreSQL server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.version = f"PostgreSQL {server.version()}"
        server.create_database("ledger")
        self.url = server.url("ledger", "postgresql+psycopg")

    def settle(self) -> None:
        """Vacuums and analyzes, as autovacuum would, and writes a checkpoint."""
        self._server.run_sql("VACUUM (ANALYZE)", "ledger")
        self._server.run_sql("CHECKPOINT", "ledger")

    def sizes(self) -> dict[str, int]:
        """Bytes by table, with indexes and TOAST."""
        with _open(self.url) as engine, engine.connect() as connection:
            return {name: int(size) for name, size in connection.execute(text(_RELATIONS))}

    def cool(self) -> None:
        """Restarts the server, which empties its cache, and drops the files from the operating system's."""
        self._server.stop()
        _drop_from_cache(self._server.data)
        self._server.start()


@contextmanager
def open_store(kind: Database, folder: Path | None = None) -> Iterator[Store]:
    """An empty database, deleted at the end. `folder` is where SQLite's file goes."""
    if kind is Database.POSTGRES:
        with PostgresServer() as server:
            yield PostgresStore(server)
        return
    home = Path(tempfile.mkdtemp(prefix="bench-ledger-", dir=folder))
    try:
        yield SqliteStore(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def group_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes by group; tables of no group count as `other`."""
    group_of = {table: group for group, tables in GROUPS.items() for table in tables}
    groups: dict[str, int] = {}
    for table, size in sizes.items():
        group = group_of.get(table, "other")
        groups[group] = groups.get(group, 0) + size
    return groups


@contextmanager
def _open(url: str) -> Iterator[Engine]:
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _drop_from_cache(folder: Path) -> None:
    """Drops the files from the operating system's cache. It drops written pages only, so they are synced first."""
    for file in filter(Path.is_file, folder.rglob("*")):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
