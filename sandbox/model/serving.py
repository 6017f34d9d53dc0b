"""One request on its way through the model server: refused, or answered, billed and delivered, in this order.

A refused request (401, 400, a status fault) is billed nothing. Whatever reached the brain is billed, also
when its answer is then cut, halved or held back: its row is committed before the first byte leaves, with
status 0 until a late answer has really left.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aiohttp import web

from sandbox.bill import Bill, BillRow
from sandbox.faults import Fault, FaultKind, deliver
from sandbox.model import openai
from sandbox.model.brain import answer_question
from sandbox.model.counting import Counting
from sandbox.model.exchange import Answer, Question, shortened
from sandbox.model.meter import PromptCache, Usage, measure

NONSENSE = "Well, it is hard to say. Some things are as they are, and the weather has been rather nice lately."
_NOTHING = Usage(input=0, output=0)
_LATE = (FaultKind.CUT, FaultKind.TIMEOUT, FaultKind.SLOW)


class Wire(Protocol):
    """What the module of a provider's protocol offers."""

    NAME: str
    COUNTING: Counting

    def read(self, body: bytes) -> Question: ...

    def write(self, answer: Answer, usage: Usage, *, model: str, number: int, created: int) -> dict[str, object]: ...

    def error(self, status: int, message: str) -> dict[str, object]: ...

    def models(self, names: Iterable[str], created: int) -> dict[str, object]: ...


@dataclass(frozen=True)
class Desk:
    """What every exchange of a server shares."""

    bill: Bill
    clock: Callable[[], datetime]
    cache: PromptCache


class Exchange:
    """One request with its answer."""

    def __init__(self, desk: Desk, request: web.Request, wire: Wire, body: bytes, arrived: datetime) -> None:
        """`arrived`: when the request began to come in; the bill dates it so, as providers' `created` does, however
        late the answer leaves."""
        self._desk = desk
        self._arrived = arrived
        self._request = request
        self._wire = wire
        self._body = body
        self._key = api_key(request)

    def refuse(self, status: int, message: str) -> web.Response:
        """An error answer, on the bill with nothing to pay."""
        self._bill(None, _NOTHING, status)
        return web.json_response(self._wire.error(status, message), status=status)

    def gone(self) -> web.Response:
        """No answer: the client went before the model had begun. On the bill with nothing to pay."""
        self._bill(None, _NOTHING, 0)
        return web.Response()

    async def serve(self, question: Question, fault: Fault | None, latency_seconds: float) -> web.StreamResponse:
        """Answers, bills, then delivers as latency and fault allow."""
        answer = self._answer(question, fault)
        automatic = self._wire.NAME == openai.NAME
        counting = self._wire.COUNTING
        usage = measure(question, answer, self._desk.cache, counting, key=self._key, automatic=automatic)
        late = latency_seconds > 0 or (fault is not None and fault.kind in _LATE)
        number = self._bill(question, usage, 0 if late else 200)
        created = int(self._arrived.timestamp())
        body = self._wire.write(answer, usage, model=question.model, number=number, created=created)
        response = web.json_response(body)
        if not late:
            return response if fault is None else await deliver(self._request, fault, response)
        return await self._leave_late(response, fault, number, latency_seconds)

    def _answer(self, question: Question, fault: Fault | None) -> Answer:
        said = answer_question(question)
        if fault is not None and fault.kind is FaultKind.NONSENSE:
            said = Answer(text=NONSENSE, thoughts=said.thoughts)
        return shortened(said, question.max_output_tokens)

    async def _leave_late(
        self, response: web.Response, fault: Fault | None, number: int, latency_seconds: float
    ) -> web.StreamResponse:
        await asyncio.sleep(latency_seconds)
        delivered = response if fault is None else await deliver(self._request, fault, response)
        cut = fault is not None and fault.kind is FaultKind.CUT
        if not cut and self._request.transport is not None:
            self._desk.bill.sent(number, delivered.status)
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
        return self._desk.bill.add(row)


def api_key(request: web.Request) -> str:
    """The caller's key, from either header; empty when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or request.headers.get("x-api-key", "").strip()
