"""Events over real sockets, through every fault of the consumer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from runtime.loopback import free_ports
from sandbox.faults import Fault, FaultBook, FaultKind
from sandbox.systems import BOOKKEEPING_PATH, create_app, events
from sandbox.systems.events import Event, NotDelivered, consumer
from tests.sandbox.systems.makers import case_body, refund_body
from tests.sandbox.systems.test_systems_http import Client, ask

LIMIT_SECONDS = 30.0
EVENT = Event(
    1,
    "refund.issued-RF-000001",
    "refund.issued",
    "bench",
    "2026-03-10T12:00:00+00:00",
    '{"refund_id": "RF-000001", "ticket_id": "T-1", "order_id": "LD-00001", "amount": "20.00", "currency": "EUR"}',
)


@pytest.fixture(autouse=True)
def nobody_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events leave because somebody wrote them, not because somebody looked by chance."""
    monkeypatch.setattr(events, "POLL_SECONDS", 3_600.0)


def clock() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def systems(state: Path, faults: FaultBook) -> AsyncIterator[Client]:
    """A server that sends its events to itself."""
    (port,) = free_ports(1)
    app = create_app(state, faults, clock, f"http://127.0.0.1:{port}{BOOKKEEPING_PATH}")
    async with TestClient(TestServer(app, port=port)) as client:
        yield client


async def issue(client: Client, number: int) -> None:
    """Posts a refund and closes its case."""
    refund_id = (await ask(client, "/refunds/post", **refund_body(number)))["refund_id"]
    assert (await ask(client, "/cases/close", **case_body(number, str(refund_id))))["created"] is True


async def rows(client: Client, book: str) -> list[dict[str, Any]]:
    async with client.get(f"/books/{book}") as response:
        return list((await response.json())["rows"])


async def until_recorded(client: Client, count: int) -> list[dict[str, Any]]:
    """The book, as soon as it has so many rows and nothing waits."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        found = await rows(client, "bookkeeping")
        if len(found) >= count and all(row["delivered_at"] for row in await rows(client, "outbox")):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "kind", [None, FaultKind.STATUS, FaultKind.CUT, FaultKind.MALFORMED, FaultKind.SLOW, FaultKind.TIMEOUT]
)
def test_each_refund_is_booked_once_whatever_the_consumer_does(tmp_path: Path, kind: FaultKind | None) -> None:
    faults = FaultBook()
    if kind is not None:
        faults.add(Fault(target="bookkeeping", kind=kind, count=2, seconds=0.05))

    async def scenario() -> None:
        async with systems(tmp_path, faults) as client:
            await asyncio.gather(*(issue(client, number) for number in range(1, 6)))
            booked = await until_recorded(client, 5)
            assert Counter(row["ticket_id"] for row in booked) == {f"T-{number}": 1 for number in range(1, 6)}
            assert {row["amount"] for row in booked} == {"20.00"}
            inbox = await rows(client, "inbox")
        lost_answers = 2 if kind in (FaultKind.CUT, FaultKind.MALFORMED) else 0
        assert sum(row["deliveries"] for row in inbox) == 5 + lost_answers

    asyncio.run(scenario())


def test_events_that_wait_at_a_stop_leave_at_the_next_start(tmp_path: Path) -> None:
    broken = FaultBook()
    broken.add(Fault(target="bookkeeping", kind=FaultKind.STATUS, status=503))

    async def scenario() -> None:
        async with systems(tmp_path, broken) as client:
            await issue(client, 1)
            assert await rows(client, "bookkeeping") == []
        async with systems(tmp_path, FaultBook()) as client:
            assert [row["ticket_id"] for row in await until_recorded(client, 1)] == ["T-1"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (EVENT, None),
        (Event(**{**EVENT.__dict__, "type": "case.closed"}), "status 400"),
        (Event(**{**EVENT.__dict__, "data": "{}"}), "status 400"),
    ],
)
def test_only_what_is_understood_counts_as_delivered(tmp_path: Path, event: Event, problem: str | None) -> None:
    async def scenario() -> None:
        async with systems(tmp_path, FaultBook()) as client, consumer(str(client.make_url(BOOKKEEPING_PATH))) as send:
            if problem is None:
                return await send(event)
            with pytest.raises(NotDelivered, match=problem):
                await send(event)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "problem"), [("/healthz", "status 405"), ("/accounts/get", "status 400"), ("/no", "status 404")]
)
def test_another_server_is_no_bookkeeping(tmp_path: Path, path: str, problem: str) -> None:
    async def scenario() -> None:
        async with systems(tmp_path, FaultBook()) as client, consumer(str(client.make_url(path))) as send:
            with pytest.raises(NotDelivered, match=problem):
                await send(EVENT)

    asyncio.run(scenario())


@pytest.mark.parametrize("body", ['{"ok": false}', '{"ok": "true"}', "[]", "null", "", "<html>"])
def test_an_answer_that_does_not_say_ok_is_no_delivery(body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async def scenario() -> None:
        app = web.Application()
        app.router.add_post("/", answer)
        async with TestClient(TestServer(app)) as client, consumer(str(client.make_url("/"))) as send:
            with pytest.raises(NotDelivered):
                await send(EVENT)

    asyncio.run(scenario())


def test_a_consumer_that_hangs_or_is_not_there_is_tried_again(tmp_path: Path) -> None:
    faults = FaultBook()
    faults.add(Fault(target="bookkeeping", kind=FaultKind.TIMEOUT))

    async def scenario() -> None:
        async with (
            systems(tmp_path, faults) as client,
            consumer(str(client.make_url(BOOKKEEPING_PATH)), give_up_seconds=0.1) as send,
        ):
            with pytest.raises(NotDelivered, match="TimeoutError"):
                await send(EVENT)
        async with consumer(f"http://127.0.0.1:{free_ports(1)[0]}") as send:
            with pytest.raises(NotDelivered, match="ClientConnectorError"):
                await send(EVENT)

    asyncio.run(scenario())
