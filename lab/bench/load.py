"""Makes load. Each lane keeps one task in flight, from this process or, for DBOS, inside its own process."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp
import grpc
from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.logger import LoggerOptions

from app.config import policy
from app.config.settings import Settings, bypass_proxies_for_sidecar
from app.dapr import sdk_patches
from app.domain.models import Ticket
from app.ledger.store import database
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.workflow.refund import NAME
from app.workflow.steps import TaskInput
from lab.bench.plan import Side, Submission
from lab.bench.sides import Running
from lab.tickets import Shape, make_ticket
from runtime.errors import UserError
from sandbox.systems.app import BOOKS_FILE

GIVE_UP_SECONDS = 60.0


class CaseWatch:
    """Counts the cases that the sandbox closes, and resolves the futures of those that are awaited.

    Use it as an asynchronous context manager. It reads the file of the sandbox's books, which costs little and works
    the same for both sides.
    """

    def __init__(self, sandbox_state: Path, poll_seconds: float = 0.02) -> None:
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self._poll_seconds = poll_seconds
        self._books = sqlite3.connect(f"file:{sandbox_state / BOOKS_FILE}?mode=ro", uri=True)
        (self._last,) = self._books.execute("SELECT coalesce(max(id), 0) FROM cases").fetchone()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, ticket_id: str) -> asyncio.Future[None]:
        """A future that resolves when the ticket's case is closed. Call this before submitting the ticket."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket_id] = future
        return future

    async def wait(self, future: asyncio.Future[None], name: str) -> None:
        """Waits for a future of `expect`. Raises UserError with the case's `name` after `GIVE_UP_SECONDS`."""
        try:
            await asyncio.wait_for(future, GIVE_UP_SECONDS)
        except TimeoutError:
            raise UserError(
                f"{name} was not closed within {GIVE_UP_SECONDS:.0f} s.", remedy="See the logs of the run."
            ) from None

    async def __aenter__(self) -> Self:
        """Starts the task that reads the books."""
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops that task and closes the books."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._books.close()

    def look(self) -> None:
        """Reads the cases that were closed since the last call."""
        query = "SELECT id, ticket_id, outcome FROM cases WHERE id > ? ORDER BY id"
        for number, ticket_id, outcome in self._books.execute(query, (self._last,)).fetchall():
            self._last = number
            self.count += 1
            self.outcomes[outcome] += 1
            future = self._waiting.pop(ticket_id, None)
            if future is not None and not future.done():
                future.set_result(None)

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(self._poll_seconds)


Submit = Callable[[Ticket], Awaitable[None]]


class NumberSource:
    """Gives each ticket number once."""

    def __init__(self, first: int = 1) -> None:
        self.next = first

    def take(self) -> int:
        """The next number."""
        return self.skip(1)

    def skip(self, count: int) -> int:
        """The first of the next `count` numbers."""
        first, self.next = self.next, self.next + count
        return first


class Load(Protocol):
    """Keeps tasks in flight."""

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Starts the lanes, spread over `spread_seconds`, so that tasks of equal length do not run in waves."""

    async def halt(self) -> None:
        """Stops the lanes, and waits for the tasks in flight."""

    async def time_tasks(self, shape: Shape, count: int) -> list[float]:
        """Runs `count` tasks one after another, and returns the seconds of each."""


class Lanes:
    """Load from this process: each lane submits a ticket, waits until its case is closed, and takes the next."""

    def __init__(self, submit: Submit, watch: CaseWatch, numbers: NumberSource) -> None:
        self._submit = submit
        self._watch = watch
        self._numbers = numbers
        self._lanes: list[asyncio.Task[None]] = []
        self._halting = False

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Starts the lanes; returns when all have started."""
        self._halting = False
        for _ in range(in_flight):
            self._lanes.append(asyncio.create_task(self._lane(shape)))
            await asyncio.sleep(spread_seconds / in_flight)

    async def halt(self) -> None:
        """Stops the lanes, and waits for the tasks in flight. Raises the first error of a lane."""
        self._halting = True
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*lanes)

    async def time_tasks(self, shape: Shape, count: int) -> list[float]:
        """As `Load.time_tasks`, from the ticket's submission until its case is closed."""
        return await time_each(lambda: self._work_one(shape), count)

    async def _lane(self, shape: Shape) -> None:
        while not self._halting:
            await self._work_one(shape)

    async def _work_one(self, shape: Shape) -> Ticket:
        ticket = make_ticket(shape, self._numbers.take())
        closed = self._watch.expect(ticket.ticket_id)
        await self._submit(ticket)
        await self._watch.wait(closed, f"the case of {ticket.task_id}")
        return ticket


async def time_each(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Runs `work` `count` times one after another, and returns the seconds of each."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - started)
    return seconds


class DbosLoad:
    """Load that DBOS's process makes by calling its own workflow."""

    def __init__(self, session: aiohttp.ClientSession, url: str, numbers: NumberSource) -> None:
        self._session = session
        self._url = url
        self._numbers = numbers

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Starts the lanes; returns when all have started."""
        order = {"shape": shape.value, "in_flight": in_flight, "first": self._numbers.next}
        await self._command("drive", order | {"spread_seconds": spread_seconds})

    async def halt(self) -> None:
        """Stops the lanes, and waits for the tasks in flight."""
        self._numbers.next = (await self._command("halt", {}))["next"]

    async def time_tasks(self, shape: Shape, count: int) -> list[float]:
        """As `Load.time_tasks`, from the workflow's call to its return."""
        order = {"shape": shape.value, "count": count, "first": self._numbers.skip(count)}
        return [float(seconds) for seconds in (await self._command("alone", order))["seconds"]]

    async def _command(self, path: str, order: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/{path}", json=order) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer


# As many as the product's web server has threads; further connections would only wait there.
_CONNECTIONS = 16
_POLL_SECONDS = 0.002
# daprd reads the rows of an instance one by one without a lock, and gives this error while the instance is written.
_HALF_WRITTEN = "missing from state store"


@asynccontextmanager
async def open_load(
    running: Running, submission: Submission, watch: CaseWatch, numbers: NumberSource
) -> AsyncIterator[Load]:
    """The load for a running side, with its connections open."""
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        if submission is Submission.HTTP:
            yield Lanes(_http_submit(session, running), watch, numbers)
        elif running.side is Side.DBOS:
            yield DbosLoad(session, running.web_url, numbers)
        else:
            async with _open_dapr_client(running) as client:
                yield DirectLanes(client, watch, numbers)


class DirectClient:
    """Starts tasks at daprd directly. It stores each ticket in the ledger first, as the intake does."""

    def __init__(self, client: DaprWorkflowClient, tickets: Tickets) -> None:
        self._client = client
        self._tickets = tickets
        self._rules = policy.load(Settings().policy_file)

    async def submit(self, ticket: Ticket) -> None:
        """Stores a ticket and starts its task."""
        await asyncio.to_thread(self._tickets.accept, ticket)
        task = TaskInput(
            tenant=ticket.tenant,
            ticket_id=ticket.ticket_id,
            customer_id=ticket.customer_id,
            order_id=ticket.order_id,
            rules=self._rules,
        )
        await self._client.schedule_new_workflow(NAME, input=task, instance_id=ticket.task_id)

    async def wait_until_completed(self, ticket: Ticket) -> None:
        """Waits until the ticket's workflow has ended. Raises UserError if it has not completed.

        It polls, since the waiting call of the SDK returns a second late after parallel steps.
        """
        while (status := await self._status(ticket)) == "RUNNING":
            await asyncio.sleep(_POLL_SECONDS)
        if status != "COMPLETED":
            raise UserError(f"The workflow of {ticket.task_id} ended as {status}.")

    async def _status(self, ticket: Ticket) -> str:
        try:
            state = await self._client.get_workflow_state(ticket.task_id)
        except grpc.aio.AioRpcError as error:
            if _HALF_WRITTEN not in str(error.details()):
                raise
            return "RUNNING"
        return str(state.runtime_status.name)


class DirectLanes(Lanes):
    """Lanes that bypass the intake. As with DBOS, single tasks are timed until their workflow ends."""

    def __init__(self, client: DirectClient, watch: CaseWatch, numbers: NumberSource) -> None:
        super().__init__(client.submit, watch, numbers)
        self._direct = client

    async def time_tasks(self, shape: Shape, count: int) -> list[float]:
        """As `Load.time_tasks`, from the submission until the workflow's end."""

        async def work() -> None:
            await self._direct.wait_until_completed(await self._work_one(shape))

        return await time_each(work, count)


def _http_submit(session: aiohttp.ClientSession, running: Running) -> Submit:
    url = f"{running.web_url}/tasks"
    headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}

    async def submit(ticket: Ticket) -> None:
        async with session.post(url, data=ticket.model_dump_json(), headers=headers) as response:
            if response.status not in (201, 202):
                raise UserError(f"{url} answers {response.status} to {ticket.task_id}: {(await response.text())[:300]}")

    return submit


@asynccontextmanager
async def _open_dapr_client(running: Running) -> AsyncIterator[DirectClient]:
    host, _, port = running.dapr_grpc.partition(":")
    bypass_proxies_for_sidecar(Settings())
    sdk_patches.use_token(running.api_token)
    silent = LoggerOptions(log_handler=logging.NullHandler())
    client = DaprWorkflowClient(host=host, port=port, logger_options=silent)
    engine = database.connect(running.ledger_url)
    writer = Writer(engine)
    try:
        yield DirectClient(client, Tickets(engine, writer, lambda: datetime.now(UTC)))
    finally:
        # The SDK's asynchronous client cannot be closed; it ends with its event loop.
        writer.close()
        engine.dispose()
