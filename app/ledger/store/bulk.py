"""Statements straight to the driver, where each counts: SQLAlchemy looks at every value of every row, which takes more
time than the database. Here a statement is composed once and goes as text, with values as the driver takes them:
instants as `columns.microseconds`, words as plain `str`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, CursorResult, Delete, Insert, Select, Update
from sqlalchemy.engine import Dialect

from app.ledger.store.columns import Instant, microseconds

Statement = Select[Any] | Insert | Update | Delete


def insert_many(connection: Connection, statement: Insert, rows: Sequence[dict[str, Any]]) -> None:
    """Runs an INSERT of all of its table's columns for each row. The rows are used up: their instants are changed."""
    if not rows:
        return
    text, instants, arranged = _prepared(statement, connection.dialect)
    for name in instants:
        for row in rows:
            row[name] = microseconds(row[name])
    connection.exec_driver_sql(text, list(map(arranged, rows)))


def run(connection: Connection, statement: Statement, values: dict[str, Any]) -> CursorResult[Any]:
    """Runs one statement with these values for its parameters."""
    text, names, fixed = _composed(statement, connection.dialect)
    given = fixed | values
    return connection.exec_driver_sql(text, tuple(given[name] for name in names) if names else given)


@lru_cache(maxsize=64)
def _composed(statement: Statement, dialect: Dialect) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """The statement's text, its parameters in their order (none where they go by name), and those that are not given:
    what an INSERT is not told is NULL, and what a condition compares with stands in the statement."""
    columns = list(statement.table.columns.keys()) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    told = compiled.params.items() if columns is None else dict.fromkeys(columns).items()
    fixed = {name: str(value) if isinstance(value, str) else value for name, value in told}
    return str(compiled), tuple(compiled.positiontup or ()), fixed


@lru_cache(maxsize=64)
def _prepared(statement: Insert, dialect: Dialect) -> tuple[str, tuple[str, ...], Callable[[dict[str, Any]], Any]]:
    """The statement's text, the columns that are instants, and what the driver takes for a row."""
    text, names, _ = _composed(statement, dialect)
    instants = tuple(column.name for column in statement.table.columns if isinstance(column.type, Instant))
    return text, instants, itemgetter(*names) if names else _as_it_is


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row
