"""How many tasks stand behind a sum, and how much was done for each: what a sum is divided by, and why it is large."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    type_coerce,
)

from app.domain.errors import FailureCause
from app.domain.models import CallState
from app.finance.rollup import Dimension
from app.ledger.store.tables import ATTEMPTS, CHARGES, EXECUTIONS, MODEL_CALLS, STEPS, TASKS

# How often steps really asked: requests of models from the journal, attempts and executions of the others.

# Sooner than this a breaker refused the call itself, not a repeat of it by the sidecar (app/pricing/formula.py).
_AT_ONCE_MICROSECONDS = 750_000


@dataclass(frozen=True)
class Measured:
    """Steps of one kind, what they asked in all, and the most that one of them did."""

    steps: int
    requests: int
    most: int

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.steps + other.steps, self.requests + other.requests, max(self.most, other.most))


@dataclass(frozen=True)
class RequestCounts:
    """models: by component, requests that left for the provider, without those that the sidecar repeated by itself.
    steps: by activity, executions of its steps, likewise. reserves: by component,
    the largest input and output that the journal reserved. answered: by component, provider and name of the models that
    have answered."""

    models: Mapping[str, Measured]
    steps: Mapping[str, Measured]
    reserves: Mapping[str, tuple[int, int]]
    answered: Mapping[str, frozenset[tuple[str, str]]]


def asked(engine: Engine) -> RequestCounts:
    """All that the ledger knows."""
    with engine.connect() as connection:
        return RequestCounts(_models(connection), _steps(connection), _reserves(connection), _answered(connection))


def _models(connection: Connection) -> dict[str, Measured]:
    requests = func.sum(case((_never_left(), 0), else_=1)).label("requests")
    step = (MODEL_CALLS.c.component, MODEL_CALLS.c.execution_id, MODEL_CALLS.c.turn)
    per_step = select(MODEL_CALLS.c.component.label("name"), requests).group_by(*step).subquery()
    whole = (
        func.count().label("steps"),
        func.sum(per_step.c.requests).label("sum"),
        func.max(per_step.c.requests).label("most"),
    )
    return _measured(connection.execute(select(per_step.c.name, *whole).group_by(per_step.c.name)).mappings())


def _never_left() -> ColumnElement[bool]:
    """The breaker refused it, or no sidecar took it."""
    error = MODEL_CALLS.c.error
    began, ended = (type_coerce(column, BigInteger) for column in (MODEL_CALLS.c.started_at, MODEL_CALLS.c.ended_at))
    soon = ended - began < _AT_ONCE_MICROSECONDS
    refused = and_(error.startswith(f"{FailureCause.BREAKER_OPEN}:"), soon)
    return and_(error.is_not(None), or_(refused, error.startswith(f"{FailureCause.SIDECAR_GONE}:")))


def _steps(connection: Connection) -> dict[str, Measured]:
    """Each attempt was executed once, and once more for each execution that did not end."""
    on = and_(STEPS.c.task_no == ATTEMPTS.c.task_no, STEPS.c.step == ATTEMPTS.c.step)
    again = (
        select(TASKS.c.task_no, EXECUTIONS.c.execution_id, func.count().label("times"))
        .join(TASKS, TASKS.c.task_id == EXECUTIONS.c.task_id)
        .where(EXECUTIONS.c.number > 1)
        .group_by(TASKS.c.task_no, EXECUTIONS.c.execution_id)
        .subquery()
    )
    repeated = and_(again.c.task_no == STEPS.c.task_no, again.c.execution_id == STEPS.c.execution_id)
    times = (func.count() + func.coalesce(func.max(again.c.times), 0)).label("requests")
    per_step = (
        select(STEPS.c.name, times)
        .join(ATTEMPTS, on)
        .join(again, repeated, isouter=True)
        .group_by(STEPS.c.task_no, STEPS.c.step, STEPS.c.name)
        .subquery()
    )
    whole = (
        func.count().label("steps"),
        func.sum(per_step.c.requests).label("sum"),
        func.max(per_step.c.requests).label("most"),
    )
    return _measured(connection.execute(select(per_step.c.name, *whole).group_by(per_step.c.name)).mappings())


def _reserves(connection: Connection) -> dict[str, tuple[int, int]]:
    largest = (func.max(MODEL_CALLS.c.reserve_input), func.max(MODEL_CALLS.c.reserve_output))
    rows = connection.execute(select(MODEL_CALLS.c.component, *largest).group_by(MODEL_CALLS.c.component))
    return {name: (int(asked), int(answered)) for name, asked, answered in rows}


def _answered(connection: Connection) -> dict[str, frozenset[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    models = (MODEL_CALLS.c.component, MODEL_CALLS.c.provider, MODEL_CALLS.c.model)
    for component, provider, model in connection.execute(select(*models).where(models[2].is_not(None)).distinct()):
        found.setdefault(component, set()).add((provider, model))
    return {component: frozenset(pairs) for component, pairs in found.items()}


def _measured(rows: Iterable[RowMapping]) -> dict[str, Measured]:
    return {row["name"]: Measured(*(int(row[key]) for key in ("steps", "sum", "most"))) for row in rows}


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
class WorkCounts:
    """What was done for a task: model calls, how many of them came to nothing, and attempts at steps beyond the first
    of each."""

    calls: int = 0
    wasted_calls: int = 0
    step_retries: int = 0


@dataclass(frozen=True)
class CountedPeriod:
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
    engine: Engine, by: Sequence[Dimension], period: CountedPeriod, tenants: Collection[str] | None
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


def work(engine: Engine, task_ids: Collection[str], period: CountedPeriod) -> dict[str, WorkCounts]:
    """What was done for these tasks."""
    found: dict[str, WorkCounts] = {}
    ordered = sorted(task_ids)
    with engine.connect() as connection:
        for start in range(0, len(ordered), _AT_ONCE):
            some = ordered[start : start + _AT_ONCE]
            found |= _calls(connection, some, period)
            for task_id, retries in _step_retries(connection, some, period).items():
                found[task_id] = replace(found.get(task_id, WorkCounts()), step_retries=retries)
    return found


def _calls(connection: Connection, task_ids: Sequence[str], period: CountedPeriod) -> dict[str, WorkCounts]:
    vain = MODEL_CALLS.c.state.in_((CallState.FAILED.value, CallState.INTERRUPTED.value))
    query = (
        select(
            MODEL_CALLS.c.task_id,
            func.count(),
            func.sum(case((vain, 1), else_=0)),
        )
        .where(MODEL_CALLS.c.task_id.in_(task_ids), *period.holds(MODEL_CALLS.c.started_at))
        .group_by(MODEL_CALLS.c.task_id)
    )
    return {task_id: WorkCounts(calls, int(wasted)) for task_id, calls, wasted in connection.execute(query)}


def _step_retries(connection: Connection, task_ids: Sequence[str], period: CountedPeriod) -> Mapping[str, int]:
    query = (
        select(TASKS.c.task_id, func.count().label("retries"))
        .join(ATTEMPTS, ATTEMPTS.c.task_no == TASKS.c.task_no)
        .where(TASKS.c.task_id.in_(task_ids), ATTEMPTS.c.number > 1, *period.holds(ATTEMPTS.c.scheduled_at))
        .group_by(TASKS.c.task_id)
    )
    return {row.task_id: row.retries for row in connection.execute(query)}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
