"""The schema of the books, version by version: what each added to the one before. No rule of the business is here."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from app.domain.errors import ConfigurationError

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

# Events and who records them. Cases that were closed before have their events, too: none was ever sent.
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

# What a letter says of the money, and money that is kept for a ticket before it is posted.
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
    """Makes the tables, or adds what books of a former version lack; inside the caller's transaction.

    Raises ConfigurationError when the books are of a version that is not known here.
    """
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(VERSIONS):
        raise ConfigurationError(
            f"{path}: the books have schema {version}, this program knows {len(VERSIONS)}; "
            "delete the file to begin with fresh sample data"
        )
    for statements in VERSIONS[version:]:
        for statement in statements.split(";\n"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(VERSIONS)}")
