"""The SQLite file of the books: schema versions, money columns, connection and transactions. Business rules are in the
systems' modules.

WAL with synchronous=NORMAL: a committed row survives SIGKILL; only a power cut may lose the last commits, which is
acceptable in a sandbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.domain.models import in_minor_units, minor_units

# The schema versions: each adds to the one before.

_FIRST = """
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

# Events and the bookkeeping that records them. Cases that were closed before get their events too, as none was sent.
_EVENTS = """
CREATE INDEX refunds_of_ticket ON refunds (tenant, ticket_id);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, tenant TEXT NOT NULL,
    at TEXT NOT NULL, data TEXT NOT NULL, delivered_at TEXT
);
CREATE INDEX outbox_undelivered ON outbox (tenant, id) WHERE delivered_at IS NULL;
CREATE TABLE inbox (
    source TEXT NOT NULL, event_id TEXT NOT NULL, received_at TEXT NOT NULL, deliveries INTEGER NOT NULL,
    PRIMARY KEY (source, event_id)
) WITHOUT ROWID;
CREATE TABLE bookkeeping (
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL, tenant TEXT NOT NULL, refund_id TEXT NOT NULL,
    ticket_id TEXT NOT NULL, order_id TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL,
    at TEXT NOT NULL, recorded_at TEXT NOT NULL
);
INSERT INTO outbox (event_id, type, tenant, at, data)
    SELECT 'refund.issued-' || cases.refund_id, 'refund.issued', cases.tenant, min(cases.at), json_object(
        'refund_id', cases.refund_id, 'ticket_id', refunds.ticket_id, 'order_id', refunds.order_id,
        'amount', printf('%d.%02d', refunds.amount / 100, refunds.amount % 100), 'currency', refunds.currency)
    FROM cases JOIN refunds
    ON refunds.id = CAST(substr(cases.refund_id, 4) AS INTEGER) AND refunds.tenant = cases.tenant
    GROUP BY refunds.id ORDER BY min(cases.id);
"""

# The refund that a letter names, and money that is held for a ticket before it is posted.
_HOLDS = """
ALTER TABLE notifications ADD COLUMN outcome TEXT;
ALTER TABLE notifications ADD COLUMN order_id TEXT;
ALTER TABLE notifications ADD COLUMN amount INTEGER;
ALTER TABLE notifications ADD COLUMN currency TEXT;
CREATE INDEX notifications_of_ticket ON notifications (tenant, ticket_id);
CREATE INDEX cases_of_ticket ON cases (tenant, ticket_id);
CREATE TABLE holds (
    tenant TEXT NOT NULL, ticket_id TEXT NOT NULL, state TEXT NOT NULL, idempotency_key TEXT, customer_id TEXT,
    order_id TEXT, amount INTEGER CHECK (amount > 0), currency TEXT, at TEXT NOT NULL, expires_at TEXT,
    PRIMARY KEY (tenant, ticket_id)
) WITHOUT ROWID;
CREATE INDEX holds_of_order ON holds (tenant, order_id);
CREATE INDEX holds_of_customer ON holds (tenant, customer_id);
"""

VERSIONS = (_FIRST, _EVENTS, _HOLDS)


def bring_up(db: sqlite3.Connection, path: Path) -> None:
    """Creates the tables, or upgrades books of an earlier version, inside the caller's transaction.

    Raises ConfigurationError if the books have a later version.
    """
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(VERSIONS):
        raise ConfigurationError(
            f"{path}: the books have schema {version}, this program knows {len(VERSIONS)}; "
            "delete the file to start with fresh sample data"
        )
    for statements in VERSIONS[version:]:
        for statement in statements.split(";\n"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(VERSIONS)}")


# Money in the books is a whole number of its currency's minor units; on the wire it is a decimal string.


def to_minor(amount: Decimal, currency: str) -> int:
    """The amount in minor units: 1.50 EUR gives 150, 150 JPY gives 150. Raises ValueError for more decimal places."""
    return int(in_minor_units(amount, currency).scaleb(minor_units(currency)))


def to_text(minor: int, currency: str) -> str:
    """The amount as a decimal string with the currency's decimal places: 1230 USD gives "12.30", 1234 KWD "1.234"."""
    return format(Decimal(minor).scaleb(-minor_units(currency)), "f")


BUSY_TIMEOUT_SECONDS = 10.0


class Books:
    """A connection to the books, for one thread at a time. A file may have several connections."""

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
        """The first row of a query, or None."""
        row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self._db.execute(sql, values).fetchall()

    def change(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Executes a writing statement, only inside `transaction`. The cursor has the number of changed rows."""
        return self._db.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end, or rolls back if the body raises.

        It holds the write lock from the start, so that what the body reads cannot change before it writes.
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
