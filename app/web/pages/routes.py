"""The pages' addresses: who may see which, and which template shows it. Every error of theirs is a page as well."""

from __future__ import annotations

import logging
import re
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from flask import Blueprint, Response, make_response, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from app.access import Access, Principal, Role, digest_of
from app.errors import AccessDenied, RefundAgentError, TaskNotFound, Unreachable
from app.ledger.record import TaskRecord
from app.models import TaskPage, TaskView
from app.web import signin
from app.web.api import TASK_ID
from app.web.front import Front
from app.web.pages import words
from app.web.pages.lines import make_lines
from app.web.pages.summary import ending, list_total, make_summary
from app.web.pages.timeline import make_timeline
from app.web.signin import HOME, Sessions

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


class Desk(Protocol):
    """What the pages need of the task desk."""

    def get(self, task_id: str) -> TaskView:
        """Raises TaskNotFound, Unreachable."""

    def newest(self, tenants: frozenset[str] | None, limit: int, before: str | None) -> TaskPage:
        """A page, newest first; `before` is the cursor of the page before. Raises Unreachable."""


class Records(Protocol):
    """What the pages need of the ledger."""

    def record(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound, also for a task that was not recorded yet."""


@dataclass(frozen=True)
class _Edge:
    """What every page shares."""

    desk: Desk
    access: Access
    records: Records
    sessions: Sessions
    front: Front


class _NotSignedIn(Exception):
    """There is no session."""


def make_pages(desk: Desk, access: Access, records: Records, sessions: Sessions, front: Front = NO_PROXY) -> Blueprint:
    """The pages as a blueprint for `/`, at `front`."""
    edge = _Edge(desk, access, records, sessions, front)
    pages = Blueprint(
        "pages", __name__, template_folder="../templates", static_folder="../static", static_url_path="/pages/static"
    )
    _add(pages, "/signin", "GET", lambda: _form(request.args.get("next")))
    _add(pages, "/signin", "POST", lambda: _signed_in(edge))
    _add(pages, "/signout", "GET", lambda: _page("signout.html"))
    _add(pages, "/signout", "POST", lambda: _signed_out(edge))
    _add(pages, "/pages", "GET", lambda: _to(edge, HOME))
    _add(pages, "/pages/tasks", "GET", lambda: _tasks(edge))
    _add(pages, "/pages/tasks/<task_id>", "GET", lambda task_id: _task(edge, task_id))
    _add(pages, "/pages/<path:rest>", "GET", lambda rest: _nothing_here())
    pages.context_processor(lambda: {"at": front.path, "words": words})
    pages.before_app_request(lambda: _home(edge))
    pages.register_error_handler(_NotSignedIn, lambda _: _to_form(edge))
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


def _page(template: str, status: int = 200, **values: Any) -> Response:
    return make_response(render_template(template, **values), status)


def _to(edge: _Edge, path: str) -> AnyResponse:
    return redirect(edge.front.path(path), 303)


def _home(edge: _Edge) -> AnyResponse | None:
    """Whoever comes with a browser wants the pages; a program gets the API's own answer."""
    wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    browses = request.path == "/" and request.method in ("GET", "HEAD") and wanted == "text/html"
    return _to(edge, HOME) if browses else None


# Sign-in.


def _form(wanted: str | None, status: int = 200, fault: str = "") -> Response:
    return _page("signin.html", status, wanted=signin.local_page(wanted), fault=fault)


def _to_form(edge: _Edge) -> AnyResponse:
    here = request.full_path.rstrip("?")
    return _to(edge, f"/signin?next={quote(here, safe='/')}")


def _signed_in(edge: _Edge) -> AnyResponse:
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
    response = make_response(_to(edge, signin.local_page(wanted)))
    signin.give_cookie(response, request, edge.sessions.begin(digest_of(token.strip())), edge.front)
    return response


def _signed_out(edge: _Edge) -> AnyResponse:
    if not edge.front.sent_from_here(request):
        return _page("signout.html", 403, fault=edge.front.foreign(request))
    edge.sessions.end(request.cookies.get(signin.COOKIE))
    response = make_response(_to(edge, "/signin"))
    signin.take_cookie(response, edge.front)
    return response


def _caller(edge: _Edge) -> Principal:
    """Who is signed in. A token that was taken away opens nothing any more."""
    holder = edge.sessions.find(request.cookies.get(signin.COOKIE))
    principal = edge.access.holder(holder) if holder else None
    if principal is None:
        raise _NotSignedIn
    return principal


def _reader(edge: _Edge, task_id: str | None = None) -> Principal:
    """The caller. A task of another tenant does not exist for it, whatever its roles are."""
    principal = _caller(edge)
    if task_id is not None:
        known = TASK_ID.fullmatch(task_id)
        if not known or not principal.sees(known["tenant"]):
            raise TaskNotFound(f"no task {task_id!r} for token {principal.name!r}; list the tasks there are")
    principal.require(Role.READ)
    return principal


# The pages.


def _tasks(edge: _Edge) -> Response:
    principal = _reader(edge)
    before = request.args.get("before", "")
    cursor = before if _CURSOR.fullmatch(before) else None
    page = edge.desk.newest(principal.tenants, PAGE_SIZE, cursor)
    listed = [(view, *_costs(edge, view)) for view in page.tasks]
    return _page("tasks.html", principal=principal, listed=listed, more=page.next_after, first=cursor is None)


def _costs(edge: _Edge, view: TaskView) -> tuple[words.MoneyCell | None, bool]:
    """What a task costs, and whether that is only so far."""
    record = _record(edge, view.task_id)
    return (list_total(record), record.ended_at is None) if record else (None, False)


def _record(edge: _Edge, task_id: str) -> TaskRecord | None:
    try:
        return edge.records.record(task_id)
    except TaskNotFound:
        return None


def _task(edge: _Edge, task_id: str) -> Response:
    """The ledger keeps a task's record when nothing else knows the task, and when nothing else answers."""
    principal = _reader(edge, task_id)
    record = _record(edge, task_id)
    try:
        view = edge.desk.get(task_id)
    except (TaskNotFound, Unreachable):
        if record is None:
            raise
        view = None
    values: dict[str, Any] = {"task_id": task_id, "view": view, "record": record, "ending": ending(view, record)}
    if record:
        values |= {
            "summary": make_summary(record),
            "timeline": make_timeline(record),
            "steps": make_lines(record),
            "total": list_total(record),
        }
    return _page("task.html", principal=principal, **values)


# Errors.


def _nothing_here() -> Response:
    return _error(404, "Nothing is here", "There is no page at this address.")


def _error(status: int, title: str, detail: str) -> Response:
    return _page("error.html", status, title=title, detail=detail)


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
    error_id = uuid.uuid4().hex
    # Types and places only: the message of an exception may hold what a customer wrote.
    places = "".join(traceback.format_tb(error.__traceback__))
    log.error("error %s: %s page: %s\n%s", error_id, request.method, type(error).__qualname__, places)
    return _error(500, "Internal error", f"The agent failed at this; look for error {error_id} in its log.")
