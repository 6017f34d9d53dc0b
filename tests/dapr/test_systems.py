"""Answers of internal systems through the sidecar: a result, a refusal, a passing failure, a final refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import aiohttp
import httpx
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from app.dapr.daprd import Daprd
from app.dapr.systems import DaprSystems, ask_blocking
from app.domain.errors import FailureCause, Refused, SystemRefused, SystemUnavailable, is_final

OK = b'{"ok": true, "order": {}}'
NO = b'{"ok": false, "code": "order_not_found"}'
OPEN = b'{"errorCode":"ERR_DIRECT_INVOKE","message":"circuit breaker is open"}'
PROBED = b'{"errorCode":"ERR_DIRECT_INVOKE","message":"too many requests"}'


@contextmanager
def sidecar(status: int, body: bytes) -> Iterator[str]:
    """A sidecar that answers every request with this status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(status: int, body: bytes) -> dict[str, Any]:
    """The result of one request to a sidecar that answers with this status and body."""

    async def ask_once(address: str) -> dict[str, Any]:
        systems = DaprSystems(Daprd(address, "", ""))
        try:
            return await systems.ask("orders", "get", {"tenant": "acme"})
        finally:
            await systems.close()

    with sidecar(status, body) as address:
        return asyncio.run(ask_once(address))


def test_an_answer_and_a_refusal() -> None:
    assert ask(200, OK) == {"order": {}}
    with pytest.raises(Refused) as refusal:
        ask(200, NO)
    assert refusal.value.reason == "order_not_found"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_may_be_retried(status: int) -> None:
    assert not is_final(status)
    with pytest.raises(SystemUnavailable, match=f"orders/get: status {status}; it is tried again later") as error:
        ask(status, b"oh")
    known = {408: FailureCause.NO_ANSWER_IN_TIME, 429: FailureCause.RATE_LIMIT, 504: FailureCause.NO_ANSWER_IN_TIME}
    assert error.value.code == known.get(status, SystemUnavailable.code)


REQUEST = aiohttp.RequestInfo(URL("http://x"), "POST", CIMultiDictProxy(CIMultiDict()), URL("http://x"))
NOT_REACHED = [
    (TimeoutError(), FailureCause.NO_ANSWER_IN_TIME),
    (aiohttp.ServerTimeoutError(), FailureCause.NO_ANSWER_IN_TIME),
    (aiohttp.ServerDisconnectedError(), FailureCause.SIDECAR_GONE),
    (aiohttp.ClientOSError(), FailureCause.SIDECAR_GONE),
    (aiohttp.ContentTypeError(REQUEST, ()), SystemUnavailable.code),
]


@pytest.mark.parametrize(("error", "code"), NOT_REACHED)
def test_a_call_that_did_not_reach_the_system_has_a_cause(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    async def ask_once() -> None:
        systems = DaprSystems(Daprd("http://127.0.0.1:1", "", ""))
        try:
            await systems.ask("orders", "get", {})
        finally:
            await systems.close()

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "post", fail)
    with pytest.raises(SystemUnavailable, match=f"orders/get: {type(error).__name__} at the sidecar") as raised:
        asyncio.run(ask_once())
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ReadTimeout(""), FailureCause.NO_ANSWER_IN_TIME),
        (httpx.ConnectError(""), FailureCause.SIDECAR_GONE),
        (ValueError("no JSON"), SystemUnavailable.code),
    ],
)
def test_a_blocking_request_has_the_same_causes(monkeypatch: pytest.MonkeyPatch, error: Exception, code: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(httpx.Client, "post", fail)
    with pytest.raises(SystemUnavailable, match="try again") as raised:
        ask_blocking(Daprd("http://127.0.0.1:1", "", ""), "orders", "get", {})
    assert raised.value.code == code


def test_without_a_sidecar_the_cause_is_sidecar_gone() -> None:
    async def ask_once() -> None:
        systems = DaprSystems(Daprd("http://127.0.0.1:1", "", ""))
        try:
            await systems.ask("orders", "get", {})
        finally:
            await systems.close()

    with pytest.raises(SystemUnavailable) as raised:
        asyncio.run(ask_once())
    assert raised.value.code == FailureCause.SIDECAR_GONE


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 415, 422])
def test_a_final_refusal_is_not_retried_and_names_the_remedy(status: int) -> None:
    assert is_final(status)
    with pytest.raises(SystemRefused) as error:
        ask(status, b"circuit breaker is open, says somebody else")
    for text in (
        f"orders/get: the system refuses the request with status {status}",
        "components/systems.yaml",
        "resume",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [(OPEN, "its circuit breaker is open"), (PROBED, "its circuit breaker lets one probe through at a time")],
)
def test_an_open_breaker_is_distinguished_from_a_status_of_the_system(body: bytes, said: str) -> None:
    with pytest.raises(SystemUnavailable, match=f"orders/get: {said}; it is tried again later") as error:
        ask(500, body)
    assert error.value.code == FailureCause.BREAKER_OPEN
    with pytest.raises(SystemUnavailable, match="orders/get: status 503"):
        ask(503, body)
