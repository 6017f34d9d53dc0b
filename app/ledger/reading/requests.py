"""How often steps really asked: requests of models from the journal, attempts and executions of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    and_,
    case,
    func,
    or_,
    select,
    type_coerce,
)

from app.domain.errors import FailureCause
from app.ledger.store.record_tables import ATTEMPTS, STEPS, TASKS
from app.ledger.store.tables import EXECUTIONS, MODEL_CALLS

# Sooner than this a breaker refused the call itself, not a repeat of it by the sidecar (app/pricing/lost.py).
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
class Asked:
    """models: by component, requests that left for the provider, the sidecar's own too as far as they found a call.
    steps: by activity, executions of its steps; what the sidecar repeated in them is not known. reserves: by component,
    the largest input and output that the journal reserved. answered: by component, provider and name of the models that
    have answered."""

    models: Mapping[str, Measured]
    steps: Mapping[str, Measured]
    reserves: Mapping[str, tuple[int, int]]
    answered: Mapping[str, frozenset[tuple[str, str]]]


def asked(engine: Engine) -> Asked:
    """All that the ledger knows."""
    with engine.connect() as connection:
        return Asked(_models(connection), _steps(connection), _reserves(connection), _answered(connection))


def _models(connection: Connection) -> dict[str, Measured]:
    requests = func.sum(case((_never_left(), 0), else_=1) + MODEL_CALLS.c.retries).label("requests")
    step = (MODEL_CALLS.c.component, MODEL_CALLS.c.execution_id, MODEL_CALLS.c.turn)
    each = select(MODEL_CALLS.c.component.label("name"), requests).group_by(*step).subquery()
    whole = (
        func.count().label("steps"),
        func.sum(each.c.requests).label("sum"),
        func.max(each.c.requests).label("most"),
    )
    return _measured(connection.execute(select(each.c.name, *whole).group_by(each.c.name)).mappings())


def _never_left() -> ColumnElement[bool]:
    """The breaker refused it, or no sidecar took it."""
    error = MODEL_CALLS.c.error
    began, ended = (type_coerce(each, BigInteger) for each in (MODEL_CALLS.c.started_at, MODEL_CALLS.c.ended_at))
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
    each = (
        select(STEPS.c.name, times)
        .join(ATTEMPTS, on)
        .join(again, repeated, isouter=True)
        .group_by(STEPS.c.task_no, STEPS.c.step, STEPS.c.name)
        .subquery()
    )
    whole = (
        func.count().label("steps"),
        func.sum(each.c.requests).label("sum"),
        func.max(each.c.requests).label("most"),
    )
    return _measured(connection.execute(select(each.c.name, *whole).group_by(each.c.name)).mappings())


def _reserves(connection: Connection) -> dict[str, tuple[int, int]]:
    largest = (func.max(MODEL_CALLS.c.reserve_input), func.max(MODEL_CALLS.c.reserve_output))
    rows = connection.execute(select(MODEL_CALLS.c.component, *largest).group_by(MODEL_CALLS.c.component))
    return {name: (int(asked), int(answered)) for name, asked, answered in rows}


def _answered(connection: Connection) -> dict[str, frozenset[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    models = (MODEL_CALLS.c.component, MODEL_CALLS.c.provider, MODEL_CALLS.c.model)
    for component, provider, model in connection.execute(select(*models).where(models[2].is_not(None)).distinct()):
        found.setdefault(component, set()).add((provider, model))
    return {component: frozenset(each) for component, each in found.items()}


def _measured(rows: Iterable[RowMapping]) -> dict[str, Measured]:
    return {row["name"]: Measured(*(int(row[key]) for key in ("steps", "sum", "most"))) for row in rows}
