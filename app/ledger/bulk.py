"""Inserts many rows at once. SQLAlchemy looks at every value of every row, which takes longer than the database needs
for it; here its statement goes to the driver as text, and the rows as the driver takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Insert
from sqlalchemy.engine import Dialect

from app.ledger.columns import Instant, microseconds


def insert_many(connection: Connection, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    """Runs an INSERT of all of its table's columns for each row. The rows are used up: their instants are changed."""
    if not rows:
        return
    text, instants, arranged = _prepared(statement, connection.dialect)
    for name in instants:
        for row in rows:
            row[name] = microseconds(row[name])
    connection.exec_driver_sql(text, list(map(arranged, rows)))


@lru_cache(maxsize=64)
def _prepared(statement: Insert, dialect: Dialect) -> tuple[str, tuple[str, ...], Callable[[dict[str, Any]], Any]]:
    """The statement's text, the columns that are instants, and what the driver takes for a row."""
    columns = statement.table.columns
    text = str(statement.compile(dialect=dialect, column_keys=list(columns.keys())))
    instants = tuple(column.name for column in columns if isinstance(column.type, Instant))
    return text, instants, itemgetter(*columns.keys()) if dialect.positional else _as_it_is


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row
