"""One run: a stack of its own, its load, its outages, until every task has ended; then what all that left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab.bench.sides import component
from lab.chaos import collect
from lab.chaos.collect import LEDGER_URL
from lab.chaos.evidence import Evidence
from lab.chaos.fault_injector import FaultInjector
from lab.chaos.load import Expected, Load
from lab.chaos.plan import Outage
from lab.clients import AgentApi
from runtime.stack import Stack
from tests.servers import PostgresServer, ensure_installed

_LOOK_SECONDS = 0.5
_LOOKED_AT = 25  # tasks of those that are under way, in each look


@dataclass(frozen=True)
class Work:
    """What a run works: the tickets, sent over `load_seconds`, and the outages. `settle_seconds` is how long after the
    last outage and the last ticket the tasks may take; what has not ended then is lost."""

    tickets: tuple[Expected, ...]
    load_seconds: float
    plan: tuple[Outage, ...] = ()
    settle_seconds: float = 300.0


def run(stack: Stack, work: Work, say: Callable[[str], None]) -> Evidence:
    """Works it on a stack that is not started yet, and stops that."""
    with stack:
        api = AgentApi.of(stack)
        try:
            return _run(stack, api, work, say)
        finally:
            api.close()


def _run(stack: Stack, api: AgentApi, work: Work, say: Callable[[str], None]) -> Evidence:
    begun = time.monotonic()
    load, injector = Load(api, work.tickets, work.load_seconds), FaultInjector(stack, say)
    load.start()
    try:
        injector.work(work.plan)
        injector.watch(begun + work.load_seconds - time.monotonic())
        _settled(api, load, injector, work)
    finally:
        load.stop()
    seconds = time.monotonic() - begun
    say(f"worked {len(load.accepted)} tasks in {seconds:.0f} s; reading books, bill, journal and histories")
    return _evidence(stack, api, work, load, injector, seconds)


def _settled(api: AgentApi, load: Load, injector: FaultInjector, work: Work) -> None:
    """Waits until every ticket is accepted and every task has ended, or until the time is over."""
    deadline = time.monotonic() + work.settle_seconds
    under_way = [ticket.task_id for ticket in work.tickets]
    while under_way and time.monotonic() < deadline:
        looked_at = under_way[:_LOOKED_AT]
        ended = {task_id for task_id in looked_at if _ended(api, task_id)}
        under_way = [task_id for task_id in under_way if task_id not in ended]
        if len(ended) < len(looked_at):
            # The first of them may be the last to end: look at others meanwhile.
            under_way = under_way[len(looked_at) - len(ended) :] + under_way[: len(looked_at) - len(ended)]
            injector.watch(_LOOK_SECONDS)


def _ended(api: AgentApi, task_id: str) -> bool:
    view = api.view(task_id)
    return view is not None and view["status"] in ("completed", "failed", "terminated")


def _evidence(stack: Stack, api: AgentApi, work: Work, load: Load, injector: FaultInjector, seconds: float) -> Evidence:
    pause = threading.Event().wait
    differences = collect.ledger_differences(stack, pause)
    tasks = collect.tasks(stack, api, [ticket.task_id for ticket in work.tickets])
    for name in stack.parts:
        if name.startswith("worker"):
            stack.stop(name)
    kept = collect.kept(stack)
    return Evidence(
        tickets=work.tickets,
        accepted=load.accepted,
        tasks=tasks,
        books=collect.books(stack, pause),
        bill=collect.bill(stack),
        calls=kept.calls,
        unattributed=kept.unattributed,
        executions=kept.executions,
        workers=kept.workers,
        restarts=tuple(injector.restarts),
        frozen=dict(injector.frozen),
        helped=dict(injector.helped),
        begun_again=kept.begun_again,
        ledger=differences,
        spent=kept.spent,
        wasted=kept.wasted,
        seconds=seconds,
    )


@contextmanager
def on_postgres() -> Iterator[dict[str, Any]]:
    """What a `Stack` is to be made with; the server ends with it."""
    ensure_installed()
    with PostgresServer() as server:
        store = component("state.postgresql", "v2", connectionString=server.create_database("workflow"))
        server.create_database("ledger")
        ledger = {LEDGER_URL: server.url("ledger", "postgresql+psycopg")}
        yield {"pairs": 2, "overlay": store, "worker_env": ledger}
