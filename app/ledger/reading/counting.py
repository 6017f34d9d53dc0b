"""How many tasks stand behind a sum, and how much was done for each: what a sum is divided by, and why it is large."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, case, exists, func, select

from app.domain.models import CallState
from app.finance.rollup import Dimension
from app.ledger.store.record_tables import ATTEMPTS, CHARGES, TASKS
from app.ledger.store.tables import MODEL_CALLS

# What belongs to a task as a whole: by anything else, one task is in several sums.
COUNTABLE = {
    Dimension.TENANT: TASKS.c.tenant,
    Dimension.AGENT: TASKS.c.agent,
    Dimension.WORKFLOW: TASKS.c.workflow,
    Dimension.OUTCOME: TASKS.c.outcome,
    Dimension.TASK: TASKS.c.task_id,
}
_AT_ONCE = 500  # tasks in one question; SQLite takes so many parameters and some more


@dataclass(frozen=True)
class Work:
    """What was done for a task: model calls, how many of them came to nothing, further requests of the sidecar, and
    attempts at steps beyond the first of each."""

    calls: int = 0
    calls_in_vain: int = 0
    sidecar_retries: int = 0
    step_retries: int = 0


@dataclass(frozen=True)
class Period:
    """From the first moment of `since` to before that of `until`, in UTC; None is without end."""

    since: date | None
    until: date | None

    def holds(self, column: Any) -> Iterator[ColumnElement[bool]]:
        """Whether a time is in it."""
        if self.since is not None:
            yield column >= _midnight(self.since)
        if self.until is not None:
            yield column < _midnight(self.until)


def tasks(
    engine: Engine, by: Sequence[Dimension], period: Period, tenants: Collection[str] | None
) -> dict[tuple[str, ...], int]:
    """How many tasks were charged, by dimensions that are countable."""
    columns = [COUNTABLE[dimension] for dimension in by]
    query = select(*columns, func.count()).select_from(TASKS).group_by(*columns)
    if when := list(period.holds(CHARGES.c.at)):
        query = query.where(exists().where(CHARGES.c.task_no == TASKS.c.task_no, *when))
    if tenants is not None:
        query = query.where(TASKS.c.tenant.in_(sorted(tenants)))
    with engine.connect() as connection:
        return {tuple(key): count for *key, count in connection.execute(query)}


def work(engine: Engine, task_ids: Collection[str], period: Period) -> dict[str, Work]:
    """What was done for these tasks."""
    found: dict[str, Work] = {}
    ordered = sorted(task_ids)
    with engine.connect() as connection:
        for start in range(0, len(ordered), _AT_ONCE):
            some = ordered[start : start + _AT_ONCE]
            found |= _calls(connection, some, period)
            for task_id, retries in _step_retries(connection, some, period).items():
                found[task_id] = replace(found.get(task_id, Work()), step_retries=retries)
    return found


def _calls(connection: Connection, task_ids: Sequence[str], period: Period) -> dict[str, Work]:
    vain = MODEL_CALLS.c.state.in_((CallState.FAILED.value, CallState.INTERRUPTED.value))
    query = (
        select(
            MODEL_CALLS.c.task_id,
            func.count(),
            func.sum(case((vain, 1), else_=0)),
            func.coalesce(func.sum(MODEL_CALLS.c.retries), 0),
        )
        .where(MODEL_CALLS.c.task_id.in_(task_ids), *period.holds(MODEL_CALLS.c.started_at))
        .group_by(MODEL_CALLS.c.task_id)
    )
    return {
        task_id: Work(calls, int(in_vain), int(retries))
        for task_id, calls, in_vain, retries in connection.execute(query)
    }


def _step_retries(connection: Connection, task_ids: Sequence[str], period: Period) -> Mapping[str, int]:
    query = (
        select(TASKS.c.task_id, func.count().label("retries"))
        .join(ATTEMPTS, ATTEMPTS.c.task_no == TASKS.c.task_no)
        .where(TASKS.c.task_id.in_(task_ids), ATTEMPTS.c.number > 1, *period.holds(ATTEMPTS.c.scheduled_at))
        .group_by(TASKS.c.task_id)
    )
    return {row.task_id: row.retries for row in connection.execute(query)}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
