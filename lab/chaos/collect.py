"""Reads what a run has left behind, each from where it is kept: books and bill, journal, histories, the ledger."""

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
from lab.chaos.evidence import Books, Execution, Row, StepSeen, TaskSeen, WorkerSeen, steps_seen
from lab.clients import AgentApi, SandboxApi
from runtime.stack import Stack

LEDGER_URL = "REFUND_AGENT_LEDGER_URL"
_RECORDED_SECONDS = 60.0
_DELIVERED_SECONDS = 30.0
_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Kept:
    """What the ledger's database holds."""

    calls: tuple[CallRecord, ...]
    unattributed: tuple[UnattributedRetries, ...]
    executions: tuple[Execution, ...]
    workers: tuple[WorkerSeen, ...]
    begun_again: frozenset[str]
    spent: Mapping[str, Decimal]
    wasted: Mapping[str, Decimal]


def settings(stack: Stack) -> Settings:
    """As the stack's agent has them."""
    return Settings(
        state_dir=stack.state,
        ledger_url=stack.worker_env.get(LEDGER_URL, ""),
        dapr_grpc_port=stack.ports.dapr_grpc,
        dapr_http_port=stack.ports.dapr_http,
    )


def books(stack: Stack, pause: Callable[[float], object]) -> Books:
    """The books of the outside world, once every event has reached them."""
    deadline = time.monotonic() + _DELIVERED_SECONDS
    sandbox = SandboxApi.of(stack)
    while any(not event["delivered_at"] for event in sandbox.book("outbox")):
        if time.monotonic() > deadline:
            break  # what is missing is found in the books
        pause(_AGAIN_SECONDS)
    return Books(**{field.name: sandbox.book(field.name) for field in fields(Books)})


def bill(stack: Stack) -> Sequence[Row]:
    """Every request that reached the model."""
    return SandboxApi.of(stack).bill()


def tasks(stack: Stack, api: AgentApi, task_ids: Sequence[str]) -> dict[str, TaskSeen]:
    """Each task that the agent knows, with its steps from Dapr's history, verified against its signatures."""
    found: dict[str, TaskSeen] = {}
    with HistoryReader(settings(stack).daprd) as reader:
        for task_id in task_ids:
            view = api.view(task_id)
            if view is not None:
                found[task_id] = _task(reader, view)
    return found


def ledger_differences(stack: Stack, pause: Callable[[float], object]) -> tuple[str, ...]:
    """What `ledger check` finds once the last task is recorded: against histories, journal and the books."""
    deadline = time.monotonic() + _RECORDED_SECONDS
    while found := bootstrap.check_ledger(settings(stack)):
        if time.monotonic() > deadline:
            return tuple(map(str, found))
        pause(_AGAIN_SECONDS)
    known = settings(stack)
    checked = refunds.check(known.database_url, known.daprd)
    return (*map(str, checked.differences), *filter(None, [checked.problem]))


def kept(stack: Stack) -> Kept:
    """The ledger's database. The worker must have been stopped: then it has counted all that its sidecar did."""
    engine = database.connect(settings(stack).database_url)
    try:
        records = LedgerQueries(engine)
        spent, wasted = _money(records)
        return Kept(
            calls=records.calls(),
            unattributed=LedgerQueries(engine).unattributed_retries(),
            executions=_executions(engine),
            workers=_workers(engine),
            begun_again=_begun_again(engine),
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


def _workers(engine: Engine) -> tuple[WorkerSeen, ...]:
    query = select(WORKERS.c.worker, WORKERS.c.started_at).order_by(WORKERS.c.started_at)
    with engine.connect() as connection:
        return tuple(WorkerSeen(**row) for row in connection.execute(query).mappings())


def _begun_again(engine: Engine) -> frozenset[str]:
    with engine.connect() as connection:
        return frozenset(connection.execute(select(BEGINNINGS.c.task_id)).scalars())


def _task(reader: HistoryReader, view: Mapping[str, Any]) -> TaskSeen:
    task_id, result = str(view["task_id"]), view["result"] or {}
    steps: tuple[StepSeen, ...] = ()
    problem = str(view["error"] or "")
    try:
        events = reader.events(task_id)
        steps = steps_seen(parse(task_id, events), events)
    except (HistoryTampered, TaskNotFound) as error:
        problem = str(error)
    return TaskSeen(task_id, str(view["status"]), str(result.get("outcome", "")), steps, problem)
