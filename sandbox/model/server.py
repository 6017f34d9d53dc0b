"""The model server: both providers' protocols, the bill, the faults and the latency."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from sandbox.bill import Bill, BillRow, total_as_json
from sandbox.faults import MODEL, Fault, FaultBook, FaultKind, crash, deliver, fault_routes, hold
from sandbox.model import anthropic, openai
from sandbox.model.brain import answer_question
from sandbox.model.capacity import Capacity, Gate
from sandbox.model.counting import Counting, PromptCache, Usage, measure
from sandbox.model.exchange import Answer, BadRequest, Question, shorten

# A request is refused, or it is answered, billed and delivered, in this order.
#
# A refused request (401, 400, a status fault) costs nothing. A request that was answered is billed even if the answer
# is then cut, truncated or delayed: its row is committed before the first byte is sent, with status 0 until a late
# answer is sent.

NONSENSE = "Well, it is hard to say. Some things are as they are, and the weather has been rather nice lately."
_NOTHING = Usage(input=0, output=0)
_LATE = (FaultKind.CUT, FaultKind.TIMEOUT, FaultKind.SLOW)


class Wire(Protocol):
    """The interface of a provider's protocol module."""

    NAME: str
    COUNTING: Counting

    def read(self, body: bytes) -> Question: ...

    def write(self, answer: Answer, usage: Usage, *, model: str, number: int, created: int) -> dict[str, object]: ...

    def error(self, status: int, message: str) -> dict[str, object]: ...

    def models(self, names: Iterable[str], created: int) -> dict[str, object]: ...


@dataclass(frozen=True)
class ServerParts:
    """The objects that all exchanges of a server share."""

    bill: Bill
    clock: Callable[[], datetime]
    cache: PromptCache


class Exchange:
    """One request and its answer."""

    def __init__(self, parts: ServerParts, request: web.Request, wire: Wire, body: bytes, arrived: datetime) -> None:
        """`arrived` is the time at which the request arrived. The bill has this time, as the providers' `created`
        has."""
        self._parts = parts
        self._arrived = arrived
        self._request = request
        self._wire = wire
        self._body = body
        self._key = api_key(request)

    def refuse(self, status: int, message: str) -> web.Response:
        """An error response; its row in the bill costs nothing."""
        self._bill(None, _NOTHING, status)
        return web.json_response(self._wire.error(status, message), status=status)

    def gone(self) -> web.Response:
        """No answer, because the client disconnected before the model started; its row in the bill costs nothing."""
        self._bill(None, _NOTHING, 0)
        return web.Response()

    async def serve(self, question: Question, fault: Fault | None, latency_seconds: float) -> web.StreamResponse:
        """Answers, bills, and delivers the answer under latency and fault."""
        answer = self._answer(question, fault)
        automatic = self._wire.NAME == openai.NAME
        counting = self._wire.COUNTING
        usage = measure(question, answer, self._parts.cache, counting, key=self._key, automatic=automatic)
        late = latency_seconds > 0 or (fault is not None and fault.kind in _LATE)
        number = self._bill(question, usage, 0 if late else 200)
        created = int(self._arrived.timestamp())
        body = self._wire.write(answer, usage, model=question.model, number=number, created=created)
        response = web.json_response(body)
        if not late:
            return response if fault is None else await deliver(self._request, fault, response)
        return await self._leave_late(response, fault, number, latency_seconds)

    def _answer(self, question: Question, fault: Fault | None) -> Answer:
        answer = answer_question(question)
        if fault is not None and fault.kind is FaultKind.NONSENSE:
            answer = Answer(text=NONSENSE, thoughts=answer.thoughts)
        return shorten(answer, question.max_output_tokens)

    async def _leave_late(
        self, response: web.Response, fault: Fault | None, number: int, latency_seconds: float
    ) -> web.StreamResponse:
        await asyncio.sleep(latency_seconds)
        delivered = response if fault is None else await deliver(self._request, fault, response)
        cut = fault is not None and fault.kind is FaultKind.CUT
        if not cut and self._request.transport is not None:
            self._parts.bill.sent(number, delivered.status)
        return delivered

    def _bill(self, question: Question | None, usage: Usage, status: int) -> int:
        row = BillRow(
            at=self._arrived.isoformat(),
            protocol=self._wire.NAME,
            model=question.model if question else "",
            input_tokens=usage.input,
            cached_tokens=usage.cached,
            output_tokens=usage.output,
            status=status,
            billed=question is not None,
            stage=question.stage if question else "",
            request_digest=hashlib.sha256(self._body).hexdigest(),
        )
        return self._parts.bill.add(row)


def api_key(request: web.Request) -> str:
    """The caller's key from either header; empty if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or request.headers.get("x-api-key", "").strip()


MODELS = ("gpt-5-nano", "gpt-5-mini", "gpt-4.1-mini", "claude-haiku-4-5", "claude-sonnet-4-5")
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_LATENCY_SECONDS = 3600.0
_NO_KEY = "no API key; send any key as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"


@dataclass
class ModelServer:
    """A model server. `clock` returns the time in UTC; `latency_seconds` is added to each answer."""

    bill: Bill
    faults: FaultBook
    clock: Callable[[], datetime]
    latency_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._parts = ServerParts(self.bill, self.clock, PromptCache(self.clock))
        self._gate = Gate(Capacity())

    def app(self) -> web.Application:
        """The web application. Closing it closes the bill."""
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
                web.get("/capacity", self._show_capacity),
                web.put("/capacity", self._set_capacity),
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
        exchange = Exchange(self._parts, request, wire, body, arrived)
        if not api_key(request):
            return exchange.refuse(401, _NO_KEY)
        if (seconds := self._gate.take_request(arrived)) is not None:
            response = exchange.refuse(429, f"Rate limit reached. Please try again in {seconds:.3f}s.")
            response.headers["Retry-After"] = str(math.ceil(seconds))
            return response
        async with self._gate.slot():
            return await self._work(request, wire, exchange, body)

    async def _work(self, request: web.Request, wire: Wire, exchange: Exchange, body: bytes) -> web.StreamResponse:
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

    async def _show_capacity(self, _: web.Request) -> web.Response:
        return web.json_response(self._gate.capacity.model_dump())

    async def _set_capacity(self, request: web.Request) -> web.Response:
        try:
            self._gate = Gate(Capacity.model_validate_json(await request.read()))
        except ValidationError as error:
            return _bad(openai.sentence(error))
        return await self._show_capacity(request)

    async def _show_latency(self, _: web.Request) -> web.Response:
        return web.json_response({"seconds": self.latency_seconds})

    async def _set_latency(self, request: web.Request) -> web.Response:
        try:
            self.latency_seconds = read_latency(await request.read())
        except ValueError as error:
            return _bad(str(error))
        return await self._show_latency(request)


def read_latency(body: bytes) -> float:
    """The seconds in a body `{"seconds": N}`. Raises ValueError, whose message has the remedy."""
    try:
        seconds = float(json.loads(body)["seconds"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'send {{"seconds": N}} with N from 0 to {MAX_LATENCY_SECONDS:.0f}') from error
    if not 0 <= seconds <= MAX_LATENCY_SECONDS:
        raise ValueError(f"{seconds} seconds is not a valid latency; send 0 to {MAX_LATENCY_SECONDS:.0f}")
    return seconds


def _bad(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)


async def _healthy(_: web.Request) -> web.Response:
    return web.json_response({"ok": True})
