"""The file the books live in: connection and transactions. No rule of the business is here; tables: `schema.py`.

WAL with synchronous=NORMAL: a committed row survives a SIGKILL of the process at any moment; only a power cut
of the whole machine may lose the last commits, which is a fair trade for scenery on a laptop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.systems.schema import bring_up

BUSY_TIMEOUT_SECONDS = 10.0


class Books:
    """One connection to the books. For one thread at a time; several may be open on one file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self.transaction():
                bring_up(self._db, path)
        except BaseException:
            self._db.close()
            raise

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Reads the first row of a query, or None."""
        row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Reads all rows of a query."""
        return self._db.execute(sql, values).fetchall()

    def change(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Writes one statement; the cursor tells how many rows it met. Only inside `transaction`."""
        return self._db.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Holds the write lock from its first read on: what was checked still holds when it is written.

        Commits at the end, or undoes everything when the body raises.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Closes the connection; the file stays."""
        self._db.close()
