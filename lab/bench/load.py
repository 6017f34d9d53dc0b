"""Makes load: lanes that each keep one task in flight, or the peer told to do so inside its own process."""

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
from app.config.settings import Settings, leave_proxies_out
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

# Watches which cases the sandbox's books close, by reading their file beside it: cheap, the same for every side.

GIVE_UP_SECONDS = 60.0


class CaseWatch:
    """Counts closed cases while it is entered, and wakes those who wait for one."""

    def __init__(self, sandbox_state: Path, poll_seconds: float = 0.02) -> None:
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self._poll_seconds = poll_seconds
        self._books = sqlite3.connect(f"file:{sandbox_state / BOOKS_FILE}?mode=ro", uri=True)
        (self._last,) = self._books.execute("SELECT coalesce(max(id), 0) FROM cases").fetchone()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, ticket_id: str) -> asyncio.Future[None]:
        """Done when the ticket's case is closed; ask before the ticket is submitted."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket_id] = future
        return future

    async def closed(self, future: asyncio.Future[None], what: str) -> None:
        """Waits for it. Raises UserError when it does not come."""
        try:
            await asyncio.wait_for(future, GIVE_UP_SECONDS)
        except TimeoutError:
            raise UserError(
                f"{what} was not closed within {GIVE_UP_SECONDS:.0f} s.", remedy="Look into the logs of the run."
            ) from None

    async def __aenter__(self) -> Self:
        """Begins to watch."""
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._books.close()

    def look(self) -> None:
        """Takes in what the books have by now."""
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
    """Ticket numbers, each given once."""

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
    """Something that keeps tasks in flight."""

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Begins, one lane after another over `spread_seconds`, so that tasks of one length come in no waves."""

    async def halt(self) -> None:
        """Starts nothing more, and waits for what runs."""

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """The seconds that each of `count` tasks takes, one after another."""


class Lanes:
    """Load from outside: each lane submits a ticket, waits until its case is closed, and takes the next."""

    def __init__(self, submit: Submit, watch: CaseWatch, numbers: NumberSource) -> None:
        self._submit = submit
        self._watch = watch
        self._numbers = numbers
        self._lanes: list[asyncio.Task[None]] = []
        self._halting = False

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Begins; returns when every lane has."""
        self._halting = False
        for _ in range(in_flight):
            self._lanes.append(asyncio.create_task(self._lane(shape)))
            await asyncio.sleep(spread_seconds / in_flight)

    async def halt(self) -> None:
        """Starts nothing more, and waits for what runs. Raises what went wrong in a lane."""
        self._halting = True
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*lanes)

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """From the ticket's submission until its case is closed."""
        return await timed(lambda: self._one(shape), count)

    async def _lane(self, shape: Shape) -> None:
        while not self._halting:
            await self._one(shape)

    async def _one(self, shape: Shape) -> Ticket:
        ticket = make_ticket(shape, self._numbers.take())
        closed = self._watch.expect(ticket.ticket_id)
        await self._submit(ticket)
        await self._watch.closed(closed, f"the case of {ticket.task_id}")
        return ticket


async def timed(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """The seconds that each of `count` runs of `work` takes, one after another."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - begun)
    return seconds


class Told:
    """Load from inside the peer's process, by its own calls."""

    def __init__(self, session: aiohttp.ClientSession, url: str, numbers: NumberSource) -> None:
        self._session = session
        self._url = url
        self._numbers = numbers

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Begins; returns when every lane has."""
        order = {"shape": shape.value, "in_flight": in_flight, "first": self._numbers.next}
        await self._tell("drive", order | {"spread_seconds": spread_seconds})

    async def halt(self) -> None:
        """Starts nothing more, and waits for what runs."""
        self._numbers.next = (await self._tell("halt", {}))["next"]

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """From the workflow's call to its return."""
        order = {"shape": shape.value, "count": count, "first": self._numbers.skip(count)}
        return [float(seconds) for seconds in (await self._tell("alone", order))["seconds"]]

    async def _tell(self, what: str, order: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/{what}", json=order) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer


# The ways in which tickets reach the two sides: over HTTP, or past it.

# As many as the product's web has threads: more connections would only wait there.
_CONNECTIONS = 16
_POLL_SECONDS = 0.002
# daprd reads an instance's rows one after another, without a lock: one that is being written gives this error.
_HALF_WRITTEN = "missing from state store"


@asynccontextmanager
async def open_load(
    running: Running, submission: Submission, watch: CaseWatch, numbers: NumberSource
) -> AsyncIterator[Load]:
    """A load for a side that runs, with its connections open."""
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        if submission is Submission.HTTP:
            yield Lanes(_over_http(session, running), watch, numbers)
        elif running.side is Side.PEER:
            yield Told(session, running.web_url, numbers)
        else:
            async with _to_daprd(running) as direct:
                yield DirectLanes(direct, watch, numbers)


class Direct:
    """Tickets straight to daprd: kept in the ledger, as the intake does, then started by the asynchronous client."""

    def __init__(self, client: DaprWorkflowClient, tickets: Tickets) -> None:
        self._client = client
        self._tickets = tickets
        self._rules = policy.load(Settings().policy_file)

    async def submit(self, ticket: Ticket) -> None:
        """Keeps and starts one ticket."""
        await asyncio.to_thread(self._tickets.accept, ticket)
        task = TaskInput(
            tenant=ticket.tenant,
            ticket_id=ticket.ticket_id,
            customer_id=ticket.customer_id,
            order_id=ticket.order_id,
            rules=self._rules,
        )
        await self._client.schedule_new_workflow(NAME, input=task, instance_id=ticket.task_id)

    async def ended(self, ticket: Ticket) -> None:
        """Returns when the ticket's workflow has ended. Raises UserError when it failed.

        It asks again and again, since the SDK's waiting call returns a second late after side-by-side steps.
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
    """Lanes past the intake; a task alone is timed until its workflow's end, as the peer's is."""

    def __init__(self, direct: Direct, watch: CaseWatch, numbers: NumberSource) -> None:
        super().__init__(direct.submit, watch, numbers)
        self._direct = direct

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """From the submission until the workflow's end."""
        return await timed(lambda: self._to_the_end(shape), count)

    async def _to_the_end(self, shape: Shape) -> None:
        await self._direct.ended(await self._one(shape))


def _over_http(session: aiohttp.ClientSession, running: Running) -> Submit:
    url = f"{running.web_url}/tasks"
    headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}

    async def submit(ticket: Ticket) -> None:
        async with session.post(url, data=ticket.model_dump_json(), headers=headers) as response:
            if response.status not in (201, 202):
                raise UserError(f"{url} answers {response.status} to {ticket.task_id}: {(await response.text())[:300]}")

    return submit


@asynccontextmanager
async def _to_daprd(running: Running) -> AsyncIterator[Direct]:
    host, _, port = running.dapr_grpc.partition(":")
    leave_proxies_out(Settings())
    sdk_patches.use_token(running.api_token)
    silent = LoggerOptions(log_handler=logging.NullHandler())
    client = DaprWorkflowClient(host=host, port=port, logger_options=silent)
    engine = database.connect(running.ledger_url)
    writer = Writer(engine)
    try:
        yield Direct(client, Tickets(engine, writer, lambda: datetime.now(UTC)))
    finally:
        # The SDK's asynchronous client has no way to be closed; it goes with its event loop.
        writer.close()
        engine.dispose()
