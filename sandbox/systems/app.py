"""The HTTP server of the internal systems: it validates requests, calls the systems and sends their answers.

The SQLite calls run on the event loop on purpose: each takes about ten microseconds, less than handing it to a thread
costs, and one writer at a time needs no lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sandbox.data import load_books
from sandbox.faults import FaultBook, fault_routes, respond
from sandbox.systems import cases, entries, events, orders, refunds, requests
from sandbox.systems.books import Books
from sandbox.systems.events import Dispatcher, consumer
from sandbox.systems.orders import seed
from sandbox.systems.requests import Answer

Clock = Callable[[], datetime]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)

BOOKS_FILE = "systems.sqlite"
BOOKKEEPING_PATH = "/bookkeeping/record"
_BOOKS = web.AppKey("books", Books)
_DISPATCHER = web.AppKey("dispatcher", Dispatcher)


@dataclass(frozen=True)
class Method(Generic[Body]):
    """One method of a system: its request model, its function on the books, and whether that writes events."""

    system: str
    name: str
    body: type[Body]
    work: Callable[[Books, Body, datetime], Answer]
    writes_events: bool = False


METHODS: tuple[Method[Any], ...] = (
    Method("accounts", "get", requests.GetAccount, orders.get_account),
    Method("orders", "get", requests.GetOrder, orders.get_order),
    Method("policies", "get", requests.GetPolicy, orders.get_policy),
    Method("refunds", "hold", requests.HoldRefund, refunds.hold),
    Method("refunds", "commit", requests.PostRefund, refunds.commit),
    Method("refunds", "void", requests.VoidRefund, refunds.void),
    Method("refunds", "post", requests.PostRefund, refunds.post),
    Method("refunds", "list", requests.ListRefunds, refunds.list_refunds),
    Method("refunds", "promised", requests.ListPromised, refunds.list_promised),
    Method("notifications", "send", requests.SendNotification, cases.send_notification),
    Method("cases", "get", requests.GetCase, cases.get_case),
    Method("cases", "close", requests.CloseCase, cases.close_case, writes_events=True),
    Method("bookkeeping", "record", requests.RefundIssued, events.record_refund),
)


def create_app(state_dir: Path, faults: FaultBook, clock: Clock, events_to: str | None = None) -> web.Application:
    """Builds the server of all systems, with its fault routes.

    The books are `state_dir/systems.sqlite`, seeded at start if the file is empty. `clock` returns the time in UTC.
    `events_to` is the URL that receives the events, `BOOKKEEPING_PATH` of such a server; without it, events stay in
    the outbox. The start raises ConfigurationError if the file has a later schema.
    """
    app = web.Application()
    app.cleanup_ctx.append(_open_books(state_dir, clock))
    if events_to is not None:
        app.cleanup_ctx.append(_run_dispatcher(events_to, clock))
    for method in METHODS:
        app.router.add_post(f"/{method.system}/{method.name}", _endpoint(method, faults, clock))
    app.router.add_get("/books/{book}", _show_book)
    app.router.add_get("/healthz", _healthz)
    app.add_routes(fault_routes(faults))
    return app


def _open_books(state_dir: Path, clock: Clock) -> Callable[[web.Application], AsyncIterator[None]]:
    async def open_books(app: web.Application) -> AsyncIterator[None]:
        state_dir.mkdir(parents=True, exist_ok=True)
        books = Books(state_dir / BOOKS_FILE)
        seed(books, load_books, clock())
        app[_BOOKS] = books
        yield
        books.close()

    return open_books


def _run_dispatcher(url: str, clock: Clock) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run_dispatcher(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            deliver = await stack.enter_async_context(consumer(url))
            app[_DISPATCHER] = dispatcher = Dispatcher(app[_BOOKS], deliver, clock)
            await stack.enter_async_context(dispatcher.running())
            yield

    return run_dispatcher


def _endpoint(method: Method[Any], faults: FaultBook, clock: Clock) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        async def work() -> web.Response:
            try:
                body = method.body.model_validate_json(await request.read())
            except ValidationError as error:
                return web.json_response(_malformed(method, error), status=400)
            answer = method.work(request.app[_BOOKS], body, clock())
            if method.writes_events and _DISPATCHER in request.app:
                request.app[_DISPATCHER].wake(body.tenant)
            return web.json_response(answer)

        return await respond(request, faults.draw(method.system, await request.read()), work)

    return handle


def _malformed(method: Method[Any], error: ValidationError) -> Answer:
    """The refusal of a malformed request: its wrong fields and errors, without values, which may be customers'
    texts."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    fields = "; ".join(f"{'.'.join(map(str, part['loc'])) or 'body'}: {part['msg']}" for part in wrong)
    return {"ok": False, "code": "malformed_request", "message": f"{method.system}/{method.name}: {fields}"}


async def _show_book(request: web.Request) -> web.Response:
    name = request.match_info["book"]
    if name not in entries.BOOK_NAMES:
        message = f"there is no book '{name}'; use one of {', '.join(entries.BOOK_NAMES)}"
        return web.json_response({"ok": False, "code": "no_book", "message": message}, status=404)
    return web.json_response({"rows": entries.book_rows(request.app[_BOOKS], name)})


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"ok": True})
