"""The file the books live in: schema, connection and transactions. No rule of the business is here.

WAL with synchronous=NORMAL: a committed row survives a SIGKILL of the process at any moment; only a power cut
of the whole machine may lose the last commits, which is a fair trade for scenery on a laptop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ConfigurationError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE accounts (
    tenant TEXT NOT NULL, customer_id TEXT NOT NULL,
    tier TEXT NOT NULL, since_day INTEGER NOT NULL, risk TEXT NOT NULL, refunds_90d INTEGER NOT NULL,
    PRIMARY KEY (tenant, customer_id)
) WITHOUT ROWID;
CREATE TABLE orders (
    tenant TEXT NOT NULL, order_id TEXT NOT NULL, customer_id TEXT NOT NULL, status TEXT NOT NULL,
    placed_day INTEGER NOT NULL, delivered_day INTEGER, currency TEXT NOT NULL,
    total INTEGER NOT NULL, charged INTEGER NOT NULL, refunded INTEGER NOT NULL, items TEXT NOT NULL,
    PRIMARY KEY (tenant, order_id),
    CHECK (refunded >= 0 AND refunded <= charged)
) WITHOUT ROWID;
CREATE INDEX orders_of_customer ON orders (tenant, customer_id, placed_day);
CREATE TABLE policies (
    tenant TEXT NOT NULL, category TEXT NOT NULL, window_days INTEGER NOT NULL,
    counted_from TEXT NOT NULL, refund_percent INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (tenant, category)
) WITHOUT ROWID;
CREATE TABLE refunds (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, idempotency_key TEXT NOT NULL, ticket_id TEXT NOT NULL,
    customer_id TEXT NOT NULL, order_id TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount > 0),
    currency TEXT NOT NULL, at TEXT NOT NULL,
    UNIQUE (tenant, idempotency_key)
);
CREATE INDEX refunds_of_customer ON refunds (tenant, customer_id, at);
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, idempotency_key TEXT NOT NULL, ticket_id TEXT NOT NULL,
    customer_id TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL,
    UNIQUE (tenant, idempotency_key)
);
CREATE TABLE cases (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, idempotency_key TEXT NOT NULL, ticket_id TEXT NOT NULL,
    outcome TEXT NOT NULL, refund_id TEXT, at TEXT NOT NULL,
    UNIQUE (tenant, idempotency_key)
);
"""


class Books:
    """One connection to the books. For one thread at a time; several may be open on one file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._prepare(path)

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
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Closes the connection; the file stays."""
        self._db.close()

    def _prepare(self, path: Path) -> None:
        with self.transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise ConfigurationError(
                    f"{path}: the books have schema {version}, this program knows {SCHEMA_VERSION}; "
                    "delete the file to begin with fresh sample data"
                )
