"""The pages' routes: sign-in, task list, task page. Errors of pages are answered with an error page."""

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
from app.web.pages.deciding import INBOX, decision_values, show_inbox, take_decision
from app.web.pages.edge import (
    NotSignedIn,
    PageEdge,
    RecordsForPages,
    TasksForPages,
    caller,
    page,
    query_with,
    reader,
    redirect_to,
    refresh_seconds,
)
from app.web.pages.lines import make_lines
from app.web.pages.summary import make_summary, state_facts
from app.web.pages.timeline import make_timeline
from app.web.signin import HOME, SessionStore

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    # Forms are accepted only from this agent's pages, and "no-referrer" would also remove a form's Origin header.
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
    """The pages as a blueprint at `/`. `front` is their public address, `clock` returns the time in UTC."""
    edge = PageEdge(service, access, records, sessions, front, clock)
    pages = Blueprint(
        "pages", __name__, template_folder="../templates", static_folder="../static", static_url_path="/pages/static"
    )
    _add(pages, "/signin", "GET", lambda: _show_sign_in(request.args.get("next")))
    _add(pages, "/signin", "POST", lambda: _sign_in(edge))
    _add(pages, "/signout", "GET", lambda: page("signout.html"))
    _add(pages, "/signout", "POST", lambda: _sign_out(edge))
    _add(pages, "/pages", "GET", lambda: redirect_to(edge, HOME))
    _add(pages, "/pages/tasks", "GET", lambda: _show_tasks(edge))
    _add(pages, "/pages/inbox", "GET", lambda: show_inbox(edge))
    _add(pages, "/pages/tasks/<task_id>/decision", "POST", lambda task_id: take_decision(edge, task_id))
    _add(pages, "/pages/tasks/<task_id>", "GET", lambda task_id: _show_task(edge, task_id))
    _add(pages, "/pages/<path:rest>", "GET", lambda rest: _answer_not_found())
    pages.context_processor(lambda: {"at": front.path, "page_texts": page_texts, "formatting": formatting})
    pages.before_app_request(lambda: _redirect_browser(edge))
    pages.register_error_handler(NotSignedIn, lambda _: _redirect_to_sign_in(edge))
    pages.register_error_handler(RefundAgentError, _answer_agent_error)
    pages.register_error_handler(HTTPException, _answer_http_error)
    pages.register_error_handler(Exception, _answer_unexpected)
    pages.after_request(_set_headers)
    return pages


def _add(pages: Blueprint, path: str, method: str, view: Callable[..., AnyResponse]) -> None:
    name = f"{method.lower()}{re.sub(r'[^a-z_]+', '_', path)}"
    pages.add_url_rule(path, endpoint=name, view_func=view, methods=[method], provide_automatic_options=False)


def _set_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


def _redirect_browser(edge: PageEdge) -> AnyResponse | None:
    """Redirects a browser that requests `/` to the task list; programs get the API's answer."""
    media_type = request.accept_mimetypes.best_match(["application/json", "text/html"])
    is_browser = request.path == "/" and request.method in ("GET", "HEAD") and media_type == "text/html"
    return redirect_to(edge, HOME) if is_browser else None


def _show_sign_in(wanted: str | None, status: int = 200, error: str = "") -> Response:
    return page("signin.html", status, wanted=signin.local_page(wanted), error=error)


def _redirect_to_sign_in(edge: PageEdge) -> AnyResponse:
    current = request.full_path.rstrip("?")
    return redirect_to(edge, f"/signin?next={quote(current, safe='/')}")


def _sign_in(edge: PageEdge) -> AnyResponse:
    wanted = request.form.get("next")
    if not edge.front.is_same_origin(request):
        return _show_sign_in(wanted, 403, edge.front.foreign_form_detail(request))
    token = request.form.get("token", "")
    try:
        edge.access.authenticate(f"Bearer {token}")
    except AccessDenied:
        response = _show_sign_in(wanted, 401, "This token is not known here. Check it, and paste all of it.")
        response.headers["WWW-Authenticate"] = 'Bearer realm="refund-agent"'
        return response
    edge.sessions.end(request.cookies.get(signin.COOKIE))
    redirect = make_response(redirect_to(edge, signin.local_page(wanted)))
    signin.set_cookie(redirect, request, edge.sessions.begin(digest_of(token.strip())), edge.front)
    return redirect


def _sign_out(edge: PageEdge) -> AnyResponse:
    if not edge.front.is_same_origin(request):
        return page("signout.html", 403, error=edge.front.foreign_form_detail(request))
    edge.sessions.end(request.cookies.get(signin.COOKIE))
    response = make_response(redirect_to(edge, "/signin"))
    signin.delete_cookie(response, edge.front)
    return response


def _show_tasks(edge: PageEdge) -> AnyResponse:
    """The list of tasks. Users who may decide but not read are redirected to the inbox."""
    principal = caller(edge)
    if principal.may(Role.APPROVE) and not principal.may(Role.READ):
        return redirect_to(edge, INBOX)
    principal.require(Role.READ)
    before, wanted = request.args.get("before", ""), request.args.get("status", "")
    cursor = before if _CURSOR.fullmatch(before) else None
    status = TaskStatus(wanted) if wanted in frozenset(TaskStatus) else None
    task_page = edge.service.newest(principal.tenants, PAGE_SIZE, cursor, status)
    records = {view.task_id: _find_record(edge, view.task_id) for view in task_page.tasks}
    digits = page_texts.list_digits(filter(None, records.values()))
    return page(
        "tasks.html",
        principal=principal,
        tasks=[(view, *_costs(records[view.task_id], digits)) for view in task_page.tasks],
        total=edge.service.count(principal.tenants, status),
        statuses=[status.value for status in TaskStatus],
        chosen=status.value if status else "",
        query=query_with(status=status and status.value, before=cursor, refresh=request.args.get("refresh")),
        more=task_page.next_after,
        first=cursor is None,
        refresh_seconds=refresh_seconds(),
        now=edge.clock(),
    )


def _costs(record: TaskRecord | None, digits: Digits) -> tuple[page_texts.MoneyTexts | None, bool]:
    """The cost of a task, and whether it may still grow because the task has not ended."""
    return (page_texts.money_cell(record.charges, digits), record.ended_at is None) if record else (None, False)


def _find_record(edge: PageEdge, task_id: str) -> TaskRecord | None:
    try:
        return edge.records.record(task_id)
    except TaskNotFound:
        return None


def _show_task(edge: PageEdge, task_id: str) -> Response:
    """A task's page. If the engine has lost the task or does not answer, the page shows the record alone."""
    principal = reader(edge, task_id)
    record = _find_record(edge, task_id)
    try:
        view = edge.service.get(task_id)
    except (TaskNotFound, Unreachable):
        if record is None:
            raise
        view = None
    values: dict[str, Any] = {"task_id": task_id, "view": view, "record": record}
    values |= {
        "state": state_facts(view, record),
        "now": edge.clock(),
        "refresh_seconds": refresh_seconds(),
        "query": query_with(refresh=request.args.get("refresh")),
    }
    values |= decision_values(edge, principal, view, record)
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


def _answer_not_found() -> Response:
    return _error_page(404, "Not found", "There is no page at this address.")


def _error_page(status: int, title: str, detail: str) -> Response:
    return page("error.html", status, title=title, detail=detail)


def _answer_agent_error(error: RefundAgentError) -> Response:
    if error.status >= 500 and not isinstance(error, Unreachable):
        return _answer_unexpected(error)
    if isinstance(error, TaskNotFound):
        # The same text for a missing task and for one that the token may not see, so that it does not tell which.
        return _error_page(
            404, error.title, "This token has no such task. The task list shows the tasks that it may see."
        )
    response = _error_page(error.status, error.title, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    if isinstance(error, Unreachable):
        response.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    return response


def _answer_http_error(error: HTTPException) -> Response:
    return _error_page(error.code or 500, error.name, error.description or error.name)


def _answer_unexpected(error: Exception) -> Response:
    database_error = trouble(error)
    if database_error is not None:
        log.error("%s page: %s (%s)", request.method, database_error, database_error.code)
        return _answer_agent_error(database_error)
    error_id = uuid.uuid4().hex
    # Only types and places: an exception's message may contain a customer's text.
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("error %s: %s page: %s\n%s", error_id, request.method, type(error).__qualname__, places)
    return _error_page(500, "Internal error", f"The agent failed; look for error {error_id} in its log.")
