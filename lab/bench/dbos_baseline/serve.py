"""The process of the DBOS baseline: takes tickets over HTTP, or makes its own load on request."""

from __future__ import annotations

import argparse
import asyncio
import gc
import hmac
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from dbos import DBOS, SetWorkflowID
from pydantic import ValidationError

from app.domain.models import Ticket
from app.domain.redaction import redact
from lab.bench.dbos_baseline import coroutines, threads
from lab.bench.dbos_baseline.outside import Addresses, Coroutines, Threads
from lab.tickets import Shape, make_ticket

QUEUE = "tickets"
_QUEUE_POLL_SECONDS = 0.02
_LANES = 256
Start = Callable[[Ticket], Awaitable[Any]]


def main() -> None:
    """Serves until SIGTERM."""
    options = _options()
    DBOS(
        config={
            "name": "peer",
            "system_database_url": options.database,
            "sys_db_pool_size": options.connections,
            "max_executor_threads": options.threads,
            "log_level": "WARNING",
        }
    )
    service = Service(options.style, options.start, Addresses(options.model, options.systems), options.token)
    DBOS.launch()
    if options.start == "queue":
        DBOS.register_queue(QUEUE, polling_interval_sec=_QUEUE_POLL_SECONDS)
    # Imported objects live as long as the process; keep the garbage collector from scanning them.
    gc.collect()
    gc.freeze()
    web.run_app(service.app(), host="127.0.0.1", port=options.port, print=None, access_log=None)
    DBOS.destroy()


class Service:
    """Serves the workflow in one of its two styles."""

    def __init__(self, style: str, start_mode: str, addresses: Addresses, token: str) -> None:
        self._token = f"Bearer {token}"
        self._driving: list[asyncio.Task[None]] = []
        self._halting = False
        self._next = 0
        if style == "coroutines":
            self._call, start, enqueue = _coroutines(addresses)
        else:
            self._call, start, enqueue = _threads(addresses)
        self._start = enqueue if start_mode == "queue" else start

    def app(self) -> web.Application:
        """The web application with all routes."""
        app = web.Application()
        app.on_startup.append(_set_thread_pool)
        app.router.add_get("/healthz", _answer_health)
        app.router.add_post("/tasks", self._submit)
        app.router.add_post("/drive", self._drive)
        app.router.add_post("/halt", self._halt)
        app.router.add_post("/alone", self._alone)
        return app

    async def _submit(self, request: web.Request) -> web.Response:
        """Starts the workflow of a ticket. A ticket that is sent twice has one workflow."""
        if not hmac.compare_digest(request.headers.get("Authorization", ""), self._token):
            return web.json_response({"error": "send the bearer token"}, status=401)
        try:
            ticket = Ticket.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=422)
        await self._start(ticket.model_copy(update={"subject": redact(ticket.subject), "text": redact(ticket.text)}))
        return web.json_response({"task_id": ticket.task_id, "status": "running"}, status=201)

    async def _drive(self, request: web.Request) -> web.Response:
        """Keeps `in_flight` workflows running, with tickets from number `first` on, until /halt."""
        order = await request.json()
        self._next = int(order["first"])
        shape, in_flight = Shape(order["shape"]), int(order["in_flight"])
        self._halting = False
        for _ in range(in_flight):
            self._driving.append(asyncio.create_task(self._lane(shape)))
            await asyncio.sleep(float(order["spread_seconds"]) / in_flight)
        return web.json_response({"driving": len(self._driving)})

    async def _lane(self, shape: Shape) -> None:
        while not self._halting:
            number, self._next = self._next, self._next + 1
            await self._call(make_ticket(shape, number))

    async def _halt(self, _: web.Request) -> web.Response:
        """Stops the lanes, and waits for the workflows in flight."""
        self._halting = True
        lanes, self._driving = self._driving, []
        await asyncio.gather(*lanes)
        return web.json_response({"next": self._next})

    async def _alone(self, request: web.Request) -> web.Response:
        """Works tickets one after another, and returns the seconds of each."""
        order = await request.json()
        seconds = []
        for number in range(int(order["first"]), int(order["first"]) + int(order["count"])):
            started = time.perf_counter()
            await self._call(make_ticket(Shape(order["shape"]), number))
            seconds.append(time.perf_counter() - started)
        return web.json_response({"seconds": seconds})


async def _set_thread_pool(_: web.Application) -> None:
    """Allows as many threads as tasks in flight, for workflows that are plain functions."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_LANES, thread_name_prefix="lane"))


def _coroutines(addresses: Addresses) -> tuple[Start, Start, Start]:
    """Ways to run the workflow: call it and wait, start it, put it into the queue."""
    work = coroutines.make_workflow(Coroutines(addresses))

    async def call(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            await work(ticket)

    async def start(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            await DBOS.start_workflow_async(work, ticket)

    async def enqueue(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            await DBOS.enqueue_workflow_async(QUEUE, work, ticket)

    return call, start, enqueue


def _threads(addresses: Addresses) -> tuple[Start, Start, Start]:
    """As `_coroutines`, for workflows that are plain functions."""
    work = threads.make_workflow(Threads(addresses, connections=256))

    def call(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            work(ticket)

    def start(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            DBOS.start_workflow(work, ticket)

    def enqueue(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            DBOS.enqueue_workflow(QUEUE, work, ticket)

    return _in_thread(call), _in_thread(start), _in_thread(enqueue)


def _in_thread(function: Callable[[Ticket], None]) -> Start:
    async def run(ticket: Ticket) -> None:
        await asyncio.to_thread(function, ticket)

    return run


async def _answer_health(_: web.Request) -> web.Response:
    return web.json_response({"ok": True})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.bench.dbos_baseline.serve", description=__doc__)
    parser.add_argument("--style", choices=("coroutines", "threads"), required=True)
    parser.add_argument("--start", choices=("direct", "queue"), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, help="URL of the system database")
    parser.add_argument("--connections", type=int, required=True, help="connections to the database")
    parser.add_argument("--threads", type=int, required=True, help="threads that DBOS may use")
    parser.add_argument("--model", required=True, help="URL of the model server")
    parser.add_argument("--systems", required=True, help="URL of the internal systems")
    parser.add_argument("--token", required=True, help="the bearer token that callers send")
    return parser.parse_args()


if __name__ == "__main__":
    main()
