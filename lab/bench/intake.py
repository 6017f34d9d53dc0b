"""The ways in which tickets reach the two sides: over HTTP, or past it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

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
from lab.bench.closed_cases import CaseWatch
from lab.bench.load import Lanes, Load, NumberSource, Submit, Told, timed
from lab.bench.plan import Side, Submission
from lab.bench.sides import Running
from lab.bench.tickets import Shape
from runtime.problems import Problem

# As many as the product's web has threads: more connections would only wait there.
_CONNECTIONS = 16
_POLL_SECONDS = 0.002
# daprd reads an instance's rows one after another, without a lock: one that is being written gives this error.
_HALF_WRITTEN = "missing from state store"


@asynccontextmanager
async def opened(
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
        """Returns when the ticket's workflow has ended. Raises Problem when it failed.

        It asks again and again, since the SDK's waiting call returns a second late after side-by-side steps.
        """
        while (status := await self._status(ticket)) == "RUNNING":
            await asyncio.sleep(_POLL_SECONDS)
        if status != "COMPLETED":
            raise Problem(f"The workflow of {ticket.task_id} ended as {status}.")

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
                raise Problem(f"{url} answers {response.status} to {ticket.task_id}: {(await response.text())[:300]}")

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
