"""The peer's process: takes tickets over HTTP, or makes its own load inside the process when told to."""

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
    peer = Peer(options.style, options.start, Addresses(options.model, options.systems), options.token)
    DBOS.launch()
    if options.start == "queue":
        DBOS.register_queue(QUEUE, polling_interval_sec=_QUEUE_POLL_SECONDS)
    # What was imported stays for ever: no collection need look at it again.
    gc.collect()
    gc.freeze()
    web.run_app(peer.app(), host="127.0.0.1", port=options.port, print=None, access_log=None)
    DBOS.destroy()


class Peer:
    """The workflow in one of its two styles, and the ways to start it."""

    def __init__(self, style: str, start: str, addresses: Addresses, token: str) -> None:
        self._token = f"Bearer {token}"
        self._driving: list[asyncio.Task[None]] = []
        self._halting = False
        self._next = 0
        if style == "coroutines":
            self._in_place, started, queued = _coroutines(addresses)
        else:
            self._in_place, started, queued = _threads(addresses)
        self._start = queued if start == "queue" else started

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application()
        app.on_startup.append(_widen)
        app.router.add_get("/healthz", _healthy)
        app.router.add_post("/tasks", self._submit)
        app.router.add_post("/drive", self._drive)
        app.router.add_post("/halt", self._halt)
        app.router.add_post("/alone", self._alone)
        return app

    async def _submit(self, request: web.Request) -> web.Response:
        """Takes one ticket; the same one again is the same workflow."""
        if not hmac.compare_digest(request.headers.get("Authorization", ""), self._token):
            return web.json_response({"error": "send the bearer token"}, status=401)
        try:
            ticket = Ticket.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=422)
        await self._start(ticket.model_copy(update={"subject": redact(ticket.subject), "text": redact(ticket.text)}))
        return web.json_response({"task_id": ticket.task_id, "status": "running"}, status=201)

    async def _drive(self, request: web.Request) -> web.Response:
        """Keeps `in_flight` workflows going, with tickets from number `first` on, until /halt; begins as told."""
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
            await self._in_place(make_ticket(shape, number))

    async def _halt(self, _: web.Request) -> web.Response:
        """Starts nothing more and waits for what runs."""
        self._halting = True
        lanes, self._driving = self._driving, []
        await asyncio.gather(*lanes)
        return web.json_response({"next": self._next})

    async def _alone(self, request: web.Request) -> web.Response:
        """Works tickets one after another; the seconds that each took."""
        order = await request.json()
        seconds = []
        for number in range(int(order["first"]), int(order["first"]) + int(order["count"])):
            begun = time.perf_counter()
            await self._in_place(make_ticket(Shape(order["shape"]), number))
            seconds.append(time.perf_counter() - begun)
        return web.json_response({"seconds": seconds})


async def _widen(_: web.Application) -> None:
    """As many threads as tasks in flight, for workflows that are plain functions."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_LANES, thread_name_prefix="lane"))


def _coroutines(addresses: Addresses) -> tuple[Start, Start, Start]:
    work = coroutines.make_workflow(Coroutines(addresses))

    async def in_place(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            await work(ticket)

    async def started(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            await DBOS.start_workflow_async(work, ticket)

    async def queued(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            await DBOS.enqueue_workflow_async(QUEUE, work, ticket)

    return in_place, started, queued


def _threads(addresses: Addresses) -> tuple[Start, Start, Start]:
    work = threads.make_workflow(Threads(addresses, connections=256))

    def in_place(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            work(ticket)

    def started(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            DBOS.start_workflow(work, ticket)

    def queued(ticket: Ticket) -> None:
        with SetWorkflowID(ticket.task_id):
            DBOS.enqueue_workflow(QUEUE, work, ticket)

    return _in_thread(in_place), _in_thread(started), _in_thread(queued)


def _in_thread(function: Callable[[Ticket], None]) -> Start:
    async def call(ticket: Ticket) -> None:
        await asyncio.to_thread(function, ticket)

    return call


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"ok": True})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.bench.dbos_baseline.serve", description=__doc__)
    parser.add_argument("--style", choices=("coroutines", "threads"), required=True)
    parser.add_argument("--start", choices=("direct", "queue"), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, help="URL of the system database")
    parser.add_argument("--connections", type=int, required=True, help="to the database")
    parser.add_argument("--threads", type=int, required=True, help="that DBOS may use")
    parser.add_argument("--model", required=True, help="URL of the model server")
    parser.add_argument("--systems", required=True, help="URL of the internal systems")
    parser.add_argument("--token", required=True, help="the bearer token that callers send")
    return parser.parse_args()


if __name__ == "__main__":
    main()
