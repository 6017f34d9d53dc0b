"""Rows that bypass SQLAlchemy are stored as those that it writes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import ATTEMPTS, CHARGES, PRICE_BOOKS
from app.ledger.store.writer import insert_many

AT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def attempt(step: int, **changes: Any) -> dict[str, Any]:
    """An attempt that has not ended, with a text that a driver could misread."""
    values: dict[str, Any] = {"task_no": 1, "step": step, "number": 1, "event_id": step}
    values |= {"scheduled_at": AT, "ended_at": None, "outcome": "open"}
    return {**values, "error": "100% of 'it' is ?, %s and :name", **changes}


def charge(step: int, **changes: Any) -> dict[str, Any]:
    """A charge with an unknown quantity."""
    values: dict[str, Any] = {"task_no": 1, "step": step, "turn": 0, "number": -1, "meter": "input", "wasted": True}
    return (
        values
        | {"correction": 0, "price_no": 1, "consumed_quantity": None, "usage_basis": "unreported", "at": AT}
        | changes
    )


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        (ATTEMPTS, [attempt(1), attempt(2, ended_at=AT, outcome="completed"), attempt(3)]),
        (
            CHARGES,
            [
                charge(1),
                charge(2, consumed_quantity=-(2**62), wasted=False, usage_basis="reported"),
                charge(3, consumed_quantity=0),
            ],
        ),
    ],
)
def test_the_rows_are_those_of_sqlalchemy(engine: Engine, table: Any, rows: list[dict[str, Any]]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(table), rows)
        through = _all(connection, table)
        connection.execute(delete(table))
        insert_many(connection, insert(table), [dict(reversed(row.items())) for row in rows])
        assert _all(connection, table) == through
        assert len(through) == 3


def test_no_rows_are_no_statement(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_many(connection, insert(CHARGES), [])
        assert _all(connection, CHARGES) == []


def test_a_failure_is_sqlalchemys_and_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(SQLAlchemyError), engine.begin() as connection:
        insert_many(connection, insert(CHARGES), [charge(1), charge(1)])
    with engine.connect() as connection:
        assert _all(connection, CHARGES) == []


def _all(connection: Connection, table: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(select(table).order_by(table.c.step))]


def test_an_insert_that_finds_its_row_there_says_so(engine: Engine) -> None:
    row = {"digest": "d", "content": "c", "first_used_at": AT}
    with engine.begin() as connection:
        counts = [connection.execute(insert_or_ignore(connection, PRICE_BOOKS), row).rowcount for _ in range(2)]
    assert counts == [1, 0]
