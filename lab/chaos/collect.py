"""Reads the evidence of a run: the sandbox's books and bill, Dapr's histories, the ledger."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, select

from app import bootstrap
from app.config.settings import Settings
from app.dapr.history.parse import parse
from app.dapr.history.reader import HistoryReader
from app.domain.errors import HistoryTampered, TaskNotFound
from app.finance.reconciliation.by_request import UnattributedRetries
from app.ledger.audit import refunds
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.ledger.store.tables import BEGINNINGS, EXECUTIONS, WORKERS
from app.pricing.charge_types import CallRecord
from lab.chaos.evidence import Books, Execution, ObservedStep, ObservedTask, ObservedWorker, Row, observe_steps
from lab.clients import AgentApi, SandboxApi
from runtime.stack import Stack

LEDGER_URL = "REFUND_AGENT_LEDGER_URL"
_RECORDED_SECONDS = 60.0
_DELIVERED_SECONDS = 30.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class LedgerFacts:
    """Evidence from the ledger's database."""

    calls: tuple[CallRecord, ...]
    unattributed: tuple[UnattributedRetries, ...]
    executions: tuple[Execution, ...]
    workers: tuple[ObservedWorker, ...]
    restarted_tasks: frozenset[str]
    spent: Mapping[str, Decimal]
    wasted: Mapping[str, Decimal]


def settings(stack: Stack) -> Settings:
    """The settings of the stack's agent."""
    return Settings(
        state_dir=stack.state,
        ledger_url=stack.worker_env.get(LEDGER_URL, ""),
        dapr_grpc_port=stack.ports.dapr_grpc,
        dapr_http_port=stack.ports.dapr_http,
    )


def books(stack: Stack, pause: Callable[[float], object]) -> Books:
    """The sandbox's books, once all events are delivered or half a minute is over."""
    deadline = time.monotonic() + _DELIVERED_SECONDS
    sandbox = SandboxApi.of(stack)
    while any(not event["delivered_at"] for event in sandbox.book("outbox")):
        if time.monotonic() > deadline:
            break  # the checks of the books report the missing entries
        pause(_POLL_SECONDS)
    return Books(**{field.name: sandbox.book(field.name) for field in fields(Books)})


def bill(stack: Stack) -> Sequence[Row]:
    """The rows of the bill: one for each request that reached the model."""
    return SandboxApi.of(stack).bill()


def tasks(stack: Stack, api: AgentApi, task_ids: Sequence[str]) -> dict[str, ObservedTask]:
    """The tasks that the agent knows, each with its steps from Dapr's history, whose signatures are verified."""
    observed: dict[str, ObservedTask] = {}
    with HistoryReader(settings(stack).daprd) as reader:
        for task_id in task_ids:
            view = api.view(task_id)
            if view is not None:
                observed[task_id] = _observe_task(reader, view)
    return observed


def ledger_differences(stack: Stack, pause: Callable[[float], object]) -> tuple[str, ...]:
    """The differences that `ledger check` reports once all tasks are recorded or a minute is over."""
    deadline = time.monotonic() + _RECORDED_SECONDS
    while differences := bootstrap.check_ledger(settings(stack)):
        if time.monotonic() > deadline:
            return tuple(map(str, differences))
        pause(_POLL_SECONDS)
    agent = settings(stack)
    checked = refunds.check(agent.database_url, agent.daprd)
    return (*map(str, checked.differences), *filter(None, [checked.problem]))


def ledger_facts(stack: Stack) -> LedgerFacts:
    """Reads the ledger's database. Stop the workers first: they write the last retry counts when they stop."""
    engine = database.connect(settings(stack).database_url)
    try:
        records = LedgerQueries(engine)
        spent, wasted = _money(records)
        return LedgerFacts(
            calls=records.calls(),
            unattributed=LedgerQueries(engine).unattributed_retries(),
            executions=_executions(engine),
            workers=_workers(engine),
            restarted_tasks=_restarted_tasks(engine),
            spent=spent,
            wasted=wasted,
        )
    finally:
        engine.dispose()


def _money(records: LedgerQueries) -> tuple[Mapping[str, Decimal], Mapping[str, Decimal]]:
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)
    wasted: defaultdict[str, Decimal] = defaultdict(Decimal)
    for charge in records.charges():
        if charge.contracted_cost is not None and charge.currency is not None:
            spent[charge.currency] += charge.contracted_cost
            if charge.wasted:
                wasted[charge.currency] += charge.contracted_cost
    return dict(spent), dict(wasted)


def _executions(engine: Engine) -> tuple[Execution, ...]:
    names = ("task_id", "execution_id", "event_id", "number", "worker", "started_at")
    query = select(*(EXECUTIONS.c[name] for name in names)).order_by(EXECUTIONS.c.started_at)
    with engine.connect() as connection:
        return tuple(Execution(**row) for row in connection.execute(query).mappings())


def _workers(engine: Engine) -> tuple[ObservedWorker, ...]:
    query = select(WORKERS.c.worker, WORKERS.c.started_at).order_by(WORKERS.c.started_at)
    with engine.connect() as connection:
        return tuple(ObservedWorker(**row) for row in connection.execute(query).mappings())


def _restarted_tasks(engine: Engine) -> frozenset[str]:
    with engine.connect() as connection:
        return frozenset(connection.execute(select(BEGINNINGS.c.task_id)).scalars())


def _observe_task(reader: HistoryReader, view: Mapping[str, Any]) -> ObservedTask:
    task_id, result = str(view["task_id"]), view["result"] or {}
    steps: tuple[ObservedStep, ...] = ()
    problem = str(view["error"] or "")
    try:
        events = reader.events(task_id)
        steps = observe_steps(parse(task_id, events), events)
    except (HistoryTampered, TaskNotFound) as error:
        problem = str(error)
    return ObservedTask(task_id, str(view["status"]), str(result.get("outcome", "")), steps, problem)
