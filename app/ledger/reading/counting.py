"""Counts tasks, model calls, attempts and executions: for averages, and to compare retries with their limits."""

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

# A call that the breaker refused sooner than this left no request at all; later, the sidecar had sent the request
# and the breaker refused its repeat (app/pricing/formula.py).
_REFUSED_FIRST_MICROSECONDS = 750_000


@dataclass(frozen=True)
class StepRequests:
    """The steps of one component or activity, the number of their requests, and the most of one step."""

    steps: int
    requests: int
    most: int

    def __add__(self, other: StepRequests) -> StepRequests:
        return StepRequests(self.steps + other.steps, self.requests + other.requests, max(self.most, other.most))


@dataclass(frozen=True)
class RequestCounts:
    """How many requests steps have made; the sidecar's own repeats are not included.

    models: by component, requests sent to the provider. steps: by activity, executions of its steps. reserves: by
    component, the largest input and output in tokens that the journal reserved. answered: by component, provider and
    name of the models that have answered.
    """

    models: Mapping[str, StepRequests]
    steps: Mapping[str, StepRequests]
    reserves: Mapping[str, tuple[int, int]]
    answered: Mapping[str, frozenset[tuple[str, str]]]


def request_counts(engine: Engine) -> RequestCounts:
    """The requests of all steps in the ledger."""
    with engine.connect() as connection:
        return RequestCounts(_models(connection), _steps(connection), _reserves(connection), _answered(connection))


def _models(connection: Connection) -> dict[str, StepRequests]:
    requests = func.sum(case((_not_sent(), 0), else_=1)).label("requests")
    step = (MODEL_CALLS.c.component, MODEL_CALLS.c.execution_id, MODEL_CALLS.c.turn)
    per_step = select(MODEL_CALLS.c.component.label("name"), requests).group_by(*step).subquery()
    whole = (
        func.count().label("steps"),
        func.sum(per_step.c.requests).label("sum"),
        func.max(per_step.c.requests).label("most"),
    )
    return _step_requests(connection.execute(select(per_step.c.name, *whole).group_by(per_step.c.name)).mappings())


def _not_sent() -> ColumnElement[bool]:
    """Whether a call sent no request to the provider: the breaker refused it, or no sidecar accepted it."""
    error = MODEL_CALLS.c.error
    started, ended = (type_coerce(column, BigInteger) for column in (MODEL_CALLS.c.started_at, MODEL_CALLS.c.ended_at))
    refused = and_(error.startswith(f"{FailureCause.BREAKER_OPEN}:"), ended - started < _REFUSED_FIRST_MICROSECONDS)
    return and_(error.is_not(None), or_(refused, error.startswith(f"{FailureCause.SIDECAR_GONE}:")))


def _steps(connection: Connection) -> dict[str, StepRequests]:
    """Executions of steps: one for each attempt, and one for each repeated execution of an attempt."""
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
    return _step_requests(connection.execute(select(per_step.c.name, *whole).group_by(per_step.c.name)).mappings())


def _reserves(connection: Connection) -> dict[str, tuple[int, int]]:
    largest = (func.max(MODEL_CALLS.c.reserve_input), func.max(MODEL_CALLS.c.reserve_output))
    rows = connection.execute(select(MODEL_CALLS.c.component, *largest).group_by(MODEL_CALLS.c.component))
    return {name: (int(input_tokens), int(output_tokens)) for name, input_tokens, output_tokens in rows}


def _answered(connection: Connection) -> dict[str, frozenset[tuple[str, str]]]:
    models: dict[str, set[tuple[str, str]]] = {}
    columns = (MODEL_CALLS.c.component, MODEL_CALLS.c.provider, MODEL_CALLS.c.model)
    query = select(*columns).where(MODEL_CALLS.c.model.is_not(None)).distinct()
    for component, provider, model in connection.execute(query):
        models.setdefault(component, set()).add((provider, model))
    return {component: frozenset(pairs) for component, pairs in models.items()}


def _step_requests(rows: Iterable[RowMapping]) -> dict[str, StepRequests]:
    return {row["name"]: StepRequests(*(int(row[key]) for key in ("steps", "sum", "most"))) for row in rows}


# Dimensions that have one value for a whole task. By any other, one task is part of several sums.
COUNTABLE = {
    Dimension.TENANT: TASKS.c.tenant,
    Dimension.AGENT: TASKS.c.agent,
    Dimension.WORKFLOW: TASKS.c.workflow,
    Dimension.OUTCOME: TASKS.c.outcome,
    Dimension.TASK: TASKS.c.task_id,
}
_BATCH = 500  # tasks in one query; SQLite limits the parameters of a statement


@dataclass(frozen=True)
class WorkCounts:
    """The work done for a task: model calls, those that failed or were interrupted, and attempts after the first of
    each step."""

    calls: int = 0
    wasted_calls: int = 0
    step_retries: int = 0


@dataclass(frozen=True)
class CountedPeriod:
    """Days from `since` to before `until` (UTC); None: no limit on that side."""

    since: date | None
    until: date | None

    def contains(self, column: Any) -> Iterator[ColumnElement[bool]]:
        """The conditions for a column's time to be in the period."""
        if self.since is not None:
            yield column >= _midnight(self.since)
        if self.until is not None:
            yield column < _midnight(self.until)


def task_counts(
    engine: Engine, by: Sequence[Dimension], period: CountedPeriod, tenants: Collection[str] | None
) -> dict[tuple[str, ...], int]:
    """The number of tasks charged in the period, by dimensions of `COUNTABLE`. `tenants` None: all."""
    columns = [COUNTABLE[dimension] for dimension in by]
    query = select(*columns, func.count()).select_from(TASKS).group_by(*columns)
    if in_period := list(period.contains(CHARGES.c.at)):
        query = query.where(exists().where(CHARGES.c.task_no == TASKS.c.task_no, *in_period))
    if tenants is not None:
        query = query.where(TASKS.c.tenant.in_(sorted(tenants)))
    with engine.connect() as connection:
        return {tuple(key): count for *key, count in connection.execute(query)}


def work_counts(engine: Engine, task_ids: Collection[str], period: CountedPeriod) -> dict[str, WorkCounts]:
    """The work done for these tasks in the period, by task id; a task without work is missing."""
    counts: dict[str, WorkCounts] = {}
    ordered = sorted(task_ids)
    with engine.connect() as connection:
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            counts |= _calls(connection, batch, period)
            for task_id, retries in _step_retries(connection, batch, period).items():
                counts[task_id] = replace(counts.get(task_id, WorkCounts()), step_retries=retries)
    return counts


def _calls(connection: Connection, task_ids: Sequence[str], period: CountedPeriod) -> dict[str, WorkCounts]:
    wasted = MODEL_CALLS.c.state.in_((CallState.FAILED.value, CallState.INTERRUPTED.value))
    query = (
        select(MODEL_CALLS.c.task_id, func.count(), func.sum(case((wasted, 1), else_=0)))
        .where(MODEL_CALLS.c.task_id.in_(task_ids), *period.contains(MODEL_CALLS.c.started_at))
        .group_by(MODEL_CALLS.c.task_id)
    )
    return {task_id: WorkCounts(calls, int(failed)) for task_id, calls, failed in connection.execute(query)}


def _step_retries(connection: Connection, task_ids: Sequence[str], period: CountedPeriod) -> Mapping[str, int]:
    query = (
        select(TASKS.c.task_id, func.count().label("retries"))
        .join(ATTEMPTS, ATTEMPTS.c.task_no == TASKS.c.task_no)
        .where(TASKS.c.task_id.in_(task_ids), ATTEMPTS.c.number > 1, *period.contains(ATTEMPTS.c.scheduled_at))
        .group_by(TASKS.c.task_id)
    )
    return {row.task_id: row.retries for row in connection.execute(query)}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
