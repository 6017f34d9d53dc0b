"""Computes the daily sums from the charges, to rebuild or to check the table of daily sums."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    select,
    text,
    type_coerce,
)

from app.ledger.store.charge_rows import DailyKey
from app.ledger.store.tables import CHARGES, DAILY_COSTS, STEPS, TASKS

_DAY = timedelta(days=1) // timedelta(microseconds=1)
_KEY = (
    (type_coerce(CHARGES.c.at, BigInteger) // _DAY).label("day"),
    TASKS.c.tenant,
    TASKS.c.agent,
    TASKS.c.workflow,
    TASKS.c.outcome,
    func.coalesce(STEPS.c.stage, "").label("stage"),
    func.coalesce(STEPS.c.name, "").label("step"),
    func.coalesce(STEPS.c.tool, "").label("tool"),
    CHARGES.c.price_no,
    CHARGES.c.usage_basis,
    CHARGES.c.wasted,
)
_COUNTS = case((CHARGES.c.correction % 2 == 1, -1), else_=1)


def charged_by_day(*more: ColumnElement[Any]) -> Select[Any]:
    """Query for every daily sum, in the columns of the table, split further by `more` (columns of tasks)."""
    sums = (
        func.coalesce(func.sum(CHARGES.c.consumed_quantity), 0).label("consumed_quantity"),
        func.sum(_COUNTS).label("charges"),
    )
    return (
        select(*_KEY, *more, *sums)
        .join(TASKS, TASKS.c.task_no == CHARGES.c.task_no)
        .join(STEPS, and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step), isouter=True)
        .group_by(*_KEY, *more)
    )


def rebuild_daily_sums(connection: Connection) -> None:
    """Deletes the daily sums and computes them from the charges. Other writers wait until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE daily_costs IN EXCLUSIVE MODE"))
    connection.execute(delete(DAILY_COSTS))
    connection.execute(insert(DAILY_COSTS).from_select([column.name for column in DAILY_COSTS.c], charged_by_day()))


def disagreements(connection: Connection) -> Iterator[tuple[DailyKey, tuple[int, int], tuple[int, int]]]:
    """The daily sums that differ from the charges: key, sum of the charges, stored sum; each sum is quantity and number
    of charges."""
    charged = _by_key(connection, charged_by_day())
    summed = _by_key(connection, select(DAILY_COSTS))
    for key in sorted(charged.keys() | summed.keys()):
        expected, stored = charged.get(key, (0, 0)), summed.get(key, (0, 0))
        if expected != stored:
            yield key, expected, stored


def _by_key(connection: Connection, query: Select[Any]) -> dict[DailyKey, tuple[int, int]]:
    return {
        DailyKey(*row[:-2])._replace(wasted=bool(row.wasted)): (int(row.consumed_quantity), int(row.charges))
        for row in connection.execute(query)
    }
