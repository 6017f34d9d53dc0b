"""The model server's routes: both providers' protocols, the bill, the faults and the latency."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web

from sandbox.bill import Bill, total_as_json
from sandbox.faults import MODEL, FaultBook, FaultKind, crash, fault_routes, hold
from sandbox.model import anthropic, openai
from sandbox.model.exchange import BadRequest
from sandbox.model.meter import PromptCache
from sandbox.model.serving import Desk, Exchange, Wire, api_key

MODELS = ("gpt-5-nano", "gpt-5-mini", "gpt-4.1-mini", "claude-haiku-4-5", "claude-sonnet-4-5")
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_LATENCY_SECONDS = 3600.0
_NO_KEY = "no API key; send any key as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"


@dataclass
class ModelServer:
    """One model server: its bill, its faults, its clock and its base latency in seconds."""

    bill: Bill
    faults: FaultBook
    clock: Callable[[], datetime]
    latency_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._desk = Desk(self.bill, self.clock, PromptCache(self.clock))

    def app(self) -> web.Application:
        """The web application with all routes. Closing it closes the bill."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat_completions),
                web.post("/v1/messages", self._messages),
                web.get("/v1/models", self._models),
                web.get("/healthz", _healthy),
                web.get("/bill", self._bill_rows),
                web.get("/bill/total", self._bill_total),
                web.get("/latency", self._show_latency),
                web.put("/latency", self._set_latency),
                *fault_routes(self.faults),
            ]
        )
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _: web.Application) -> None:
        self.bill.close()

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, openai)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, anthropic)

    async def _answer(self, request: web.Request, wire: Wire) -> web.StreamResponse:
        arrived = self.clock()
        body = await request.read()
        exchange = Exchange(self._desk, request, wire, body, arrived)
        if not api_key(request):
            return exchange.refuse(401, _NO_KEY)
        fault = self.faults.draw(MODEL, body)
        if fault is not None and fault.before_work:
            if not await hold(request, fault.hold_seconds):
                return exchange.gone()
            fault = None
        if fault is not None and fault.kind is FaultKind.CRASH:
            crash()
        if fault is not None and fault.kind is FaultKind.STATUS:
            return exchange.refuse(fault.status, f"ordered fault {fault.status}; DELETE /faults ends it")
        try:
            question = wire.read(body)
        except BadRequest as error:
            return exchange.refuse(400, str(error))
        return await exchange.serve(question, fault, self.latency_seconds)

    async def _models(self, request: web.Request) -> web.Response:
        wire: Wire = anthropic if "anthropic-version" in request.headers else openai
        if not api_key(request):
            return web.json_response(wire.error(401, _NO_KEY), status=401)
        return web.json_response(wire.models(MODELS, int(self.clock().timestamp())))

    async def _bill_rows(self, request: web.Request) -> web.Response:
        try:
            after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", -1))
        except ValueError:
            return _bad(f"after and limit are whole numbers, not '{request.query_string}'")
        return web.json_response({"rows": self.bill.rows(after, limit)})

    async def _bill_total(self, _: web.Request) -> web.Response:
        return web.json_response(total_as_json(self.bill.total()))

    async def _show_latency(self, _: web.Request) -> web.Response:
        return web.json_response({"seconds": self.latency_seconds})

    async def _set_latency(self, request: web.Request) -> web.Response:
        try:
            self.latency_seconds = read_latency(await request.read())
        except ValueError as error:
            return _bad(str(error))
        return await self._show_latency(request)


def read_latency(body: bytes) -> float:
    """The seconds in {"seconds": N}. Raises ValueError with the remedy."""
    try:
        seconds = float(json.loads(body)["seconds"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'send {{"seconds": N}} with N from 0 to {MAX_LATENCY_SECONDS:.0f}') from error
    if not 0 <= seconds <= MAX_LATENCY_SECONDS:
        raise ValueError(f"{seconds} seconds is no latency; send 0 to {MAX_LATENCY_SECONDS:.0f}")
    return seconds


def _bad(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"ok": True})
