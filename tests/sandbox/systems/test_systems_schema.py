"""Books of a former version are brought up to date in place; those of a later one are refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from sandbox.systems import entries
from sandbox.systems.books import VERSIONS, Books
from tests.sandbox.systems.makers import close, post

FIRST_ROWS = """
INSERT INTO orders VALUES ('bench', 'LD-00001', 'load-00001', 'delivered', 1, 2, 'EUR', 2000, 2000, 705, '[]');
INSERT INTO refunds VALUES (4, 'bench', 'k-1', 'T-1', 'load-00001', 'LD-00001', 705, 'EUR', '2026-03-09T00:00Z');
INSERT INTO refunds VALUES (5, 'bench', 'k-2', 'T-2', 'load-00002', 'LD-00002', 2000, 'EUR', '2026-03-09T00:00Z');
INSERT INTO cases VALUES (1, 'bench', 'c-1', 'T-1', 'refunded', 'RF-000004', '2026-03-09T00:00:01+00:00');
INSERT INTO cases VALUES (2, 'bench', 'c-3', 'T-3', 'answered', NULL, '2026-03-09T00:00:02+00:00');
"""


def books_of_version_1(path: Path) -> None:
    """A file as the first version wrote it: a closed case with a refund, one without, a refund whose case is open."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSIONS[0] + FIRST_ROWS)
        connection.execute("PRAGMA user_version = 1")


def test_books_of_the_first_version_keep_their_rows_and_get_their_events(tmp_path: Path, now: datetime) -> None:
    path = tmp_path / "systems.sqlite"
    books_of_version_1(path)
    books = Books(path)
    assert [row["refund_id"] for row in entries.book_rows(books, "refunds")] == ["RF-000004", "RF-000005"]
    (issued,) = entries.book_rows(books, "outbox")
    assert issued["event_id"] == "refund.issued-RF-000004"
    close(books, 2, "RF-000005", now)
    post(books, 6, now)
    close(books, 6, "RF-000006", now)
    made = entries.book_rows(books, "outbox")
    assert [row["event_id"] for row in made[1:]] == ["refund.issued-RF-000005", "refund.issued-RF-000006"]
    earlier, later = (json.loads(str(row["data"])) for row in made[:2])
    assert earlier == later | {"refund_id": "RF-000004", "ticket_id": "T-1", "order_id": "LD-00001", "amount": "7.05"}
    books.close()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "systems.sqlite"
    books_of_version_1(path)
    for _ in range(2):
        books = Books(path)
        assert len(entries.book_rows(books, "outbox")) == 1
        books.close()


def test_books_brought_up_have_the_tables_of_new_ones(tmp_path: Path) -> None:
    books_of_version_1(tmp_path / "old.sqlite")
    schemas = []
    for name in ("old.sqlite", "new.sqlite"):
        Books(tmp_path / name).close()
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            schemas.append(set(connection.execute("SELECT type, name, sql FROM sqlite_master")))
    assert schemas[0] == schemas[1]


def test_books_of_a_later_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "systems.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match=r"schema 99, this program knows 3; delete the file"):
        Books(path)
