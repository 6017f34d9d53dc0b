"""Fault injection: the book of ordered faults, the routes that change it, and the responses that apply it.

A test or an experiment orders a fault for a target (the model or an internal system). The book decides for each request
whether a fault fires, with a seeded generator, so that the same run fails in the same places. `status` and `crash`
apply before any work is done. All other kinds apply after it, as in production: the money is spent, the refund is
posted, and only the answer is late, broken or lost. A timeout with `before_work` delays the request itself.
`containing` and `skip` select one request of one task.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, NoReturn

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


def contains_text(body: bytes, text: str) -> bool:
    """Whether a string in a JSON body contains `text`; False for a body that is not JSON."""
    try:
        return any(text in string for string in _texts(json.loads(body)))
    except ValueError:
        return False


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


MODEL = "model"
SYSTEMS = ("accounts", "orders", "policies", "refunds", "notifications", "cases")
BOOKKEEPING = "bookkeeping"  # receives events; the agent does not call it
TARGETS = (MODEL, *SYSTEMS, BOOKKEEPING)
HOLD_SECONDS = 3600.0
SLOW_SECONDS = 1.0
CRASH_EXIT_CODE = 70
_GONE_POLL_SECONDS = 0.05


class FaultKind(StrEnum):
    """The way in which a request fails."""

    STATUS = "status"  # refused with an HTTP status, nothing done
    TIMEOUT = "timeout"  # work done, the answer held back
    CUT = "cut"  # work done, the connection closed
    MALFORMED = "malformed"  # work done, half a JSON document sent
    NONSENSE = "nonsense"  # a well-formed model answer without useful content
    SLOW = "slow"  # the right answer, late
    CRASH = "crash"  # the process ends at once


class Fault(BaseModel):
    """One ordered fault. It fires for `share` of the requests, at most `count` times; `seconds` is the delay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    kind: FaultKind
    status: Annotated[int, Field(ge=400, le=599)] = 500
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None  # None: 3600 for timeout, 1 for slow
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    after_bytes: Annotated[int, Field(ge=0)] = 0  # body bytes sent before a cut; 0: nothing at all
    containing: str = ""  # only requests with this in one of their strings
    skip: Annotated[int, Field(ge=0)] = 0  # the number of these requests that pass first
    before_work: bool = False  # for timeouts: the request is held first, and the work is done after `seconds`

    @model_validator(mode="after")
    def _fits_its_target(self) -> Fault:
        if self.target not in TARGETS:
            raise ValueError(_unknown(self.target))
        if self.kind is FaultKind.NONSENSE and self.target != MODEL:
            raise ValueError(f"kind 'nonsense' works on the target 'model' only, not on '{self.target}'")
        if self.before_work and self.kind is not FaultKind.TIMEOUT:
            raise ValueError(f"before_work goes with kind 'timeout' only, not with '{self.kind}'")
        return self

    @property
    def hold_seconds(self) -> float:
        """The delay of a timeout or slow fault."""
        if self.seconds is not None:
            return self.seconds
        return HOLD_SECONDS if self.kind is FaultKind.TIMEOUT else SLOW_SECONDS


class FaultRow(Fault):
    """A fault as the book lists it, with its number and its firings so far."""

    id: int
    fired: int


@dataclass
class _Entry:
    fault: Fault
    fired: int = 0
    passed: int = 0
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.fault.seed)  # noqa: S311 - repeatable on purpose, not for security

    def fires(self, body: bytes) -> bool:
        if self.fault.count is not None and self.fired >= self.fault.count:
            return False
        if self.fault.containing and not contains_text(body, self.fault.containing):
            return False
        if self.passed < self.fault.skip:
            self.passed += 1
            return False
        if self.dice.random() >= self.fault.share:
            return False
        self.fired += 1
        return True


class FaultBook:
    """All ordered faults of the sandbox, shared by both ports. Not for use from several threads."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._last_id = 0

    def add(self, fault: Fault) -> FaultRow:
        """Adds a fault after those already in the book."""
        self._last_id += 1
        self._entries[self._last_id] = _Entry(fault)
        return FaultRow(**fault.model_dump(), id=self._last_id, fired=0)

    def list(self) -> tuple[FaultRow, ...]:
        """All faults, oldest first; exhausted ones stay until they are cleared."""
        return tuple(
            FaultRow(**entry.fault.model_dump(), id=number, fired=entry.fired)
            for number, entry in self._entries.items()
        )

    def clear(self, target: str | None = None) -> int:
        """Removes the faults of one target, or all faults; returns their number."""
        numbers = [number for number, entry in self._entries.items() if target in (None, entry.fault.target)]
        for number in numbers:
            del self._entries[number]
        return len(numbers)

    def draw(self, target: str, body: bytes = b"") -> Fault | None:
        """Returns the oldest fault on `target` that fires for this request, or None."""
        for entry in self._entries.values():
            if entry.fault.target == target and entry.fires(body):
                return entry.fault
        return None


def refuse(fault: Fault) -> web.Response:
    """The error response of a status fault."""
    message = f"fault on {fault.target}: HTTP {fault.status}; DELETE /faults ends it"
    return web.json_response({"error": message}, status=fault.status)


async def respond(
    request: web.Request,
    fault: Fault | None,
    work: Callable[[], Awaitable[web.Response]],
    refusal: Callable[[Fault], web.Response] = refuse,
) -> web.StreamResponse:
    """Answers a request under a drawn fault, which may prevent `work` or change the delivery of its answer.

    Use: `return await respond(request, faults.draw("orders"), work)`.
    """
    if fault is not None and fault.before_work:
        return await work() if await hold(request, fault.hold_seconds) else web.Response()
    if fault is None:
        return await work()
    if fault.kind is FaultKind.CRASH:
        crash()
    if fault.kind is FaultKind.STATUS:
        return refusal(fault)
    return await deliver(request, fault, await work())


def crash() -> NoReturn:
    """Ends the process at once, without handlers or flushing, like SIGKILL."""
    os._exit(CRASH_EXIT_CODE)


async def deliver(request: web.Request, fault: Fault, response: web.Response) -> web.StreamResponse:
    """Delivers a finished answer under the fault: late, truncated, cut off or unchanged."""
    if fault.kind in (FaultKind.SLOW, FaultKind.TIMEOUT):
        await hold(request, fault.hold_seconds)
    elif fault.kind is FaultKind.MALFORMED:
        return _truncate(response)
    elif fault.kind is FaultKind.CUT:
        return await _cut(request, fault, response)
    return response


async def hold(request: web.Request, seconds: float) -> bool:
    """Waits `seconds`, or until the client disconnects; returns whether the client is still connected."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0 and not _client_gone(request):
        await asyncio.sleep(min(left, _GONE_POLL_SECONDS))
    return not _client_gone(request)


def _client_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _truncate(response: web.Response) -> web.Response:
    body = _body(response)
    return web.Response(body=body[: len(body) // 2], status=response.status, content_type="application/json")


def _body(response: web.Response) -> bytes:
    return bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""


async def _cut(request: web.Request, fault: Fault, response: web.Response) -> web.StreamResponse:
    if fault.after_bytes == 0:
        if request.transport is not None:
            request.transport.abort()
        return response
    body = _body(response)
    partial = web.StreamResponse(status=response.status)
    partial.content_type = "application/json"
    partial.content_length = len(body)
    await partial.prepare(request)
    await partial.write(body[: min(fault.after_bytes, len(body) - 1)])
    if request.transport is not None:
        request.transport.close()
    return partial


def fault_routes(book: FaultBook) -> list[web.RouteDef]:
    """The routes PUT, GET and DELETE /faults for `book`."""

    async def put(request: web.Request) -> web.Response:
        try:
            fault = Fault.model_validate_json(await request.read())
        except ValidationError as error:
            return _json({"error": _sentence(error)}, status=400)
        return _json({"fault": book.add(fault).model_dump(mode="json")})

    async def show(_: web.Request) -> web.Response:
        return _json({"faults": [row.model_dump(mode="json") for row in book.list()]})

    async def delete(request: web.Request) -> web.Response:
        target = request.query.get("target")
        if target is not None and target not in TARGETS:
            return _json({"error": _unknown(target)}, status=400)
        return _json({"cleared": book.clear(target)})

    return [web.put("/faults", put), web.get("/faults", show), web.delete("/faults", delete)]


def _json(body: dict[str, object], status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _unknown(target: str) -> str:
    return f"target '{target}' is unknown; use one of {', '.join(TARGETS)}"


def _sentence(error: ValidationError) -> str:
    parts = error.errors(include_url=False)
    return "; ".join(f"{'.'.join(map(str, part['loc'])) or 'fault'}: {part['msg']}" for part in parts)
