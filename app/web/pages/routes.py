"""The pages' addresses: who may see which, and which template shows it. Every error of theirs is a page as well."""

from __future__ import annotations

import logging
import re
import traceback
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, make_response, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from app.domain import formatting
from app.domain.errors import AccessDenied, RefundAgentError, TaskNotFound, Unreachable
from app.domain.formatting import Digits
from app.domain.models import TaskStatus
from app.ledger.store.database import trouble
from app.ledger.store.task_record import TaskRecord
from app.tasks.access import Access, Role, digest_of
from app.web import signin
from app.web.front import Front
from app.web.pages import page_texts
from app.web.pages.deciding import INBOX, about_deciding, show_inbox, take_decision
from app.web.pages.edge import (
    NotSignedIn,
    PageEdge,
    RecordsForPages,
    TasksForPages,
    caller,
    every,
    page,
    query_with,
    reader,
    to,
)
from app.web.pages.lines import make_lines
from app.web.pages.summary import ending, make_summary
from app.web.pages.timeline import make_timeline
from app.web.signin import HOME, SessionStore

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    # A form is only taken from a page of ours, and "no-referrer" would take its origin away as well.
    "Referrer-Policy": "same-origin",
}
PAGE_SIZE = 25
_CURSOR = re.compile(r"[0-9]{1,18}")
_RETRY_AFTER_SECONDS = 5

NO_PROXY = Front()

log = logging.getLogger(__name__)


def make_pages(
    service: TasksForPages,
    access: Access,
    records: RecordsForPages,
    sessions: SessionStore,
    clock: Callable[[], datetime],
    front: Front = NO_PROXY,
) -> Blueprint:
    """The pages as a blueprint for `/`, at `front`. `clock` gives the time in UTC."""
    edge = PageEdge(service, access, records, sessions, front, clock)
    pages = Blueprint(
        "pages", __name__, template_folder="../templates", static_folder="../static", static_url_path="/pages/static"
    )
    _add(pages, "/signin", "GET", lambda: _form(request.args.get("next")))
    _add(pages, "/signin", "POST", lambda: _signed_in(edge))
    _add(pages, "/signout", "GET", lambda: page("signout.html"))
    _add(pages, "/signout", "POST", lambda: _signed_out(edge))
    _add(pages, "/pages", "GET", lambda: to(edge, HOME))
    _add(pages, "/pages/tasks", "GET", lambda: _tasks(edge))
    _add(pages, "/pages/inbox", "GET", lambda: show_inbox(edge))
    _add(pages, "/pages/tasks/<task_id>/decision", "POST", lambda task_id: take_decision(edge, task_id))
    _add(pages, "/pages/tasks/<task_id>", "GET", lambda task_id: _task(edge, task_id))
    _add(pages, "/pages/<path:rest>", "GET", lambda rest: _nothing_here())
    pages.context_processor(lambda: {"at": front.path, "words": page_texts, "formatting": formatting})
    pages.before_app_request(lambda: _home(edge))
    pages.register_error_handler(NotSignedIn, lambda _: _to_form(edge))
    pages.register_error_handler(RefundAgentError, _ours)
    pages.register_error_handler(HTTPException, _of_http)
    pages.register_error_handler(Exception, _unexpected)
    pages.after_request(_with_headers)
    return pages


def _add(pages: Blueprint, path: str, method: str, view: Callable[..., AnyResponse]) -> None:
    name = f"{method.lower()}{re.sub(r'[^a-z_]+', '_', path)}"
    pages.add_url_rule(path, endpoint=name, view_func=view, methods=[method], provide_automatic_options=False)


def _with_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def _home(edge: PageEdge) -> AnyResponse | None:
    """Whoever comes with a browser wants the pages; a program gets the API's own answer."""
    wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    browses = request.path == "/" and request.method in ("GET", "HEAD") and wanted == "text/html"
    return to(edge, HOME) if browses else None


# Sign-in.


def _form(wanted: str | None, status: int = 200, fault: str = "") -> Response:
    return page("signin.html", status, wanted=signin.local_page(wanted), fault=fault)


def _to_form(edge: PageEdge) -> AnyResponse:
    here = request.full_path.rstrip("?")
    return to(edge, f"/signin?next={quote(here, safe='/')}")


def _signed_in(edge: PageEdge) -> AnyResponse:
    wanted = request.form.get("next")
    if not edge.front.sent_from_here(request):
        return _form(wanted, 403, edge.front.foreign(request))
    token = request.form.get("token", "")
    try:
        edge.access.authenticate(f"Bearer {token}")
    except AccessDenied:
        refused = _form(wanted, 401, "This token is not known here. Check it, and paste all of it.")
        refused.headers["WWW-Authenticate"] = 'Bearer realm="refund-agent"'
        return refused
    edge.sessions.end(request.cookies.get(signin.COOKIE))
    response = make_response(to(edge, signin.local_page(wanted)))
    signin.give_cookie(response, request, edge.sessions.begin(digest_of(token.strip())), edge.front)
    return response


def _signed_out(edge: PageEdge) -> AnyResponse:
    if not edge.front.sent_from_here(request):
        return page("signout.html", 403, fault=edge.front.foreign(request))
    edge.sessions.end(request.cookies.get(signin.COOKIE))
    response = make_response(to(edge, "/signin"))
    signin.take_cookie(response, edge.front)
    return response


# The pages.


def _tasks(edge: PageEdge) -> AnyResponse:
    """The list; whoever may decide and not read is led to what waits."""
    principal = caller(edge)
    if principal.may(Role.APPROVE) and not principal.may(Role.READ):
        return to(edge, INBOX)
    principal.require(Role.READ)
    before, wanted = request.args.get("before", ""), request.args.get("status", "")
    cursor = before if _CURSOR.fullmatch(before) else None
    status = TaskStatus(wanted) if wanted in frozenset(TaskStatus) else None
    listed = edge.service.newest(principal.tenants, PAGE_SIZE, cursor, status)
    records = {view.task_id: _record(edge, view.task_id) for view in listed.tasks}
    digits = page_texts.list_digits(filter(None, records.values()))
    return page(
        "tasks.html",
        principal=principal,
        listed=[(view, *_costs(records[view.task_id], digits)) for view in listed.tasks],
        total=edge.service.count(principal.tenants, status),
        statuses=[status.value for status in TaskStatus],
        chosen=status.value if status else "",
        query=query_with(status=status and status.value, before=cursor, refresh=request.args.get("refresh")),
        more=listed.next_after,
        first=cursor is None,
        every=every(),
        now=edge.clock(),
    )


def _costs(record: TaskRecord | None, digits: Digits) -> tuple[page_texts.MoneyTexts | None, bool]:
    """What a task costs, and whether that is only so far."""
    return (page_texts.money_cell(record.charges, digits), record.ended_at is None) if record else (None, False)


def _record(edge: PageEdge, task_id: str) -> TaskRecord | None:
    try:
        return edge.records.record(task_id)
    except TaskNotFound:
        return None


def _task(edge: PageEdge, task_id: str) -> Response:
    """The ledger keeps a task's record when nothing else knows the task, and when nothing else answers."""
    principal = reader(edge, task_id)
    record = _record(edge, task_id)
    try:
        view = edge.service.get(task_id)
    except (TaskNotFound, Unreachable):
        if record is None:
            raise
        view = None
    values: dict[str, Any] = {"task_id": task_id, "view": view, "record": record, "ending": ending(view, record)}
    values |= {"now": edge.clock(), "every": every(), "query": query_with(refresh=request.args.get("refresh"))}
    values |= about_deciding(edge, principal, view, record)
    if record:
        digits = page_texts.record_digits(record)
        values |= {
            "digits": digits,
            "summary": make_summary(record, digits),
            "timeline": make_timeline(record, digits),
            "steps": make_lines(record, digits),
            "total": page_texts.money_cell(record.charges, digits),
        }
    return page("task.html", principal=principal, **values)


# Errors.


def _nothing_here() -> Response:
    return _error(404, "Nothing is here", "There is no page at this address.")


def _error(status: int, title: str, detail: str) -> Response:
    return page("error.html", status, title=title, detail=detail)


def _ours(error: RefundAgentError) -> Response:
    if error.status >= 500 and not isinstance(error, Unreachable):
        return _unexpected(error)
    if isinstance(error, TaskNotFound):
        # One text for a task that is not there and one that the token may not see: nobody learns which.
        return _error(404, error.title, "There is no such task for this token. The list of tasks has those there are.")
    response = _error(error.status, error.title, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    if isinstance(error, Unreachable):
        response.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    return response


def _of_http(error: HTTPException) -> Response:
    return _error(error.code or 500, error.name, error.description or error.name)


def _unexpected(error: Exception) -> Response:
    known = trouble(error)
    if known is not None:
        log.error("%s page: %s (%s)", request.method, known, known.code)
        return _ours(known)
    error_id = uuid.uuid4().hex
    # Types and places only: the message of an exception may hold what a customer wrote.
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("error %s: %s page: %s\n%s", error_id, request.method, type(error).__qualname__, places)
    return _error(500, "Internal error", f"The agent failed at this; look for error {error_id} in its log.")
