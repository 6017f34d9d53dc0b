"""One run on a fresh stack: load and outages until all tasks have ended, then the evidence."""

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

_POLL_SECONDS = 0.5
_POLLED_TASKS = 25  # of the open tasks, in each poll


@dataclass(frozen=True)
class Work:
    """The tickets of a run, sent over `load_seconds`, and its outages. A task that has not ended `settle_seconds` after
    the last outage and the last ticket is lost."""

    tickets: tuple[Expected, ...]
    load_seconds: float
    plan: tuple[Outage, ...] = ()
    settle_seconds: float = 300.0


def run(stack: Stack, work: Work, say: Callable[[str], None]) -> Evidence:
    """Starts the stack, works the tickets, collects the evidence, and stops the stack. `say` prints progress."""
    with stack:
        api = AgentApi.of(stack)
        try:
            return _run(stack, api, work, say)
        finally:
            api.close()


def _run(stack: Stack, api: AgentApi, work: Work, say: Callable[[str], None]) -> Evidence:
    started = time.monotonic()
    load, injector = Load(api, work.tickets, work.load_seconds), FaultInjector(stack, say)
    load.start()
    try:
        injector.carry_out(work.plan)
        injector.watch(started + work.load_seconds - time.monotonic())
        _wait_for_tasks(api, load, injector, work)
    finally:
        load.stop()
    seconds = time.monotonic() - started
    say(f"worked {len(load.accepted)} tasks in {seconds:.0f} s; reading books, bill, journal and histories")
    return _collect_evidence(stack, api, work, load, injector, seconds)


def _wait_for_tasks(api: AgentApi, load: Load, injector: FaultInjector, work: Work) -> None:
    """Waits until all tasks have ended, or until `settle_seconds` are over."""
    deadline = time.monotonic() + work.settle_seconds
    open_tasks = [ticket.task_id for ticket in work.tickets]
    while open_tasks and time.monotonic() < deadline:
        polled = open_tasks[:_POLLED_TASKS]
        ended = {task_id for task_id in polled if _has_ended(api, task_id)}
        open_tasks = [task_id for task_id in open_tasks if task_id not in ended]
        if len(ended) < len(polled):
            # Move those that are still open to the end of the list, since they may be the last to end.
            open_tasks = open_tasks[len(polled) - len(ended) :] + open_tasks[: len(polled) - len(ended)]
            injector.watch(_POLL_SECONDS)


def _has_ended(api: AgentApi, task_id: str) -> bool:
    view = api.view(task_id)
    return view is not None and view["status"] in ("completed", "failed", "terminated")


def _collect_evidence(
    stack: Stack, api: AgentApi, work: Work, load: Load, injector: FaultInjector, seconds: float
) -> Evidence:
    pause = threading.Event().wait
    differences = collect.ledger_differences(stack, pause)
    tasks = collect.tasks(stack, api, [ticket.task_id for ticket in work.tickets])
    for name in stack.parts:
        if name.startswith("worker"):
            stack.stop(name)
    facts = collect.ledger_facts(stack)
    return Evidence(
        tickets=work.tickets,
        accepted=load.accepted,
        tasks=tasks,
        books=collect.books(stack, pause),
        bill=collect.bill(stack),
        calls=facts.calls,
        unattributed=facts.unattributed,
        executions=facts.executions,
        workers=facts.workers,
        restarts=tuple(injector.restarts),
        frozen=dict(injector.frozen),
        unplanned_restarts=dict(injector.unplanned_restarts),
        restarted_tasks=facts.restarted_tasks,
        ledger=differences,
        spent=facts.spent,
        wasted=facts.wasted,
        seconds=seconds,
    )


@contextmanager
def postgres_options() -> Iterator[dict[str, Any]]:
    """Starts a PostgreSQL server; gives the options for a `Stack` with two workers on it."""
    ensure_installed()
    with PostgresServer() as server:
        store = component("state.postgresql", "v2", connectionString=server.create_database("workflow"))
        server.create_database("ledger")
        ledger = {LEDGER_URL: server.url("ledger", "postgresql+psycopg")}
        yield {"pairs": 2, "overlay": store, "worker_env": ledger}
