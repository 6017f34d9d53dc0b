"""A model server on a real socket, in a thread of its own, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runtime.loopback import HOST, free_ports
from sandbox.bill import Bill
from sandbox.faults import FaultBook
from sandbox.model.server import ModelServer

KEY = {"Authorization": "Bearer any"}
START = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@dataclass
class Served:
    """A running model server, as a client sees it."""

    port: int
    now: datetime = START
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://{HOST}:{self.port}"

    def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Sends JSON, gives status and JSON."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, KEY if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def bill(self) -> list[dict[str, Any]]:
        """The rows of the bill."""
        rows: list[dict[str, Any]] = self.call("GET", "/bill")[1]["rows"]
        return rows

    def fault(self, **fault: object) -> None:
        """Orders a fault on the model."""
        status, body = self.call("PUT", "/faults", {"target": "model", **fault})
        assert status == 200, body


async def _serve(served: Served, state: Path, stop: asyncio.Event) -> None:
    server = ModelServer(Bill(state / "bill.sqlite"), FaultBook(), lambda: served.now)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, served.port).start()
    served.ready.set()
    await stop.wait()
    await runner.cleanup()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A fresh server with an empty bill."""
    served = Served(free_ports(1)[0])
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(_serve(served, tmp_path, stop)))
    thread.start()
    assert served.ready.wait(20)
    yield served
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    loop.close()


def classify_messages(text: str, subject: str = "Order") -> list[dict[str, str]]:
    """The messages of the stage classify."""
    user = f"Subject: {subject}\nOrder in the form: none\n<ticket>\n{text}\n</ticket>"
    return [{"role": "system", "content": "Stage: classify\nAnswer in JSON."}, {"role": "user", "content": user}]


@pytest.fixture
def chat() -> dict[str, Any]:
    """A chat completion request of the stage classify."""
    return {"model": "gpt-4.1-mini", "messages": classify_messages("My lamp AC-10442 arrived broken, refund me.")}
