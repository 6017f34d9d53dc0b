"""Shared by all pages: the interfaces to the agent, the signed-in user, and rendering of templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlencode

from flask import Response, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from app.domain.errors import TaskNotFound
from app.domain.models import Decision, Inbox, TaskPage, TaskStatus, TaskView, TicketView
from app.ledger.store.task_record import TaskRecord
from app.tasks.access import Access, Principal, Role
from app.web import signin
from app.web.api.binding import TASK_ID
from app.web.front import Front
from app.web.signin import SessionStore

REFRESH_SECONDS = 10  # of a page that reloads itself


class TasksForPages(Protocol):
    """The task service, as the pages use it. `tenants` None means all tenants."""

    def get(self, task_id: str) -> TaskView:
        """The task as it is now. Raises TaskNotFound, Unreachable."""

    def count(self, tenants: frozenset[str] | None, status: TaskStatus | None) -> int:
        """The number of tasks with `status`; None means any status."""

    def inbox(
        self,
        tenants: frozenset[str] | None,
        narrowed_to: str | None,
        reason: str | None,
        asked_before: datetime | None,
        limit: int,
        after: str | None,
    ) -> Inbox:
        """A page of the tasks that wait for a person, the oldest first."""

    def ticket(self, task_id: str) -> TicketView:
        """The customer's text, redacted. Raises TaskNotFound."""

    def decide(self, task_id: str, decision: Decision, note: str) -> tuple[TaskView, bool]:
        """Sends a decision to the task; False if the task has not answered yet. Raises NotWaiting, DecisionRefused."""

    def note_denied(self, task_id: str, decision: Decision) -> None:
        """Notes an attempt by a caller who may not decide. Raises TaskNotFound."""

    def newest(
        self, tenants: frozenset[str] | None, limit: int, before: str | None, status: TaskStatus | None
    ) -> TaskPage:
        """A page of tasks, newest first; `before` is the cursor of the previous page."""


class RecordsForPages(Protocol):
    """The ledger's queries, as the pages use them."""

    def record(self, task_id: str) -> TaskRecord:
        """The record of a task. Raises TaskNotFound, also if the task has no record yet."""


@dataclass(frozen=True)
class PageEdge:
    """The objects that all pages share."""

    service: TasksForPages
    access: Access
    records: RecordsForPages
    sessions: SessionStore
    front: Front
    clock: Callable[[], datetime]


class NotSignedIn(Exception):
    """The request has no valid session."""


def page(template: str, status: int = 200, **values: Any) -> Response:
    """The response with a rendered template."""
    return make_response(render_template(template, **values), status)


def redirect_to(edge: PageEdge, path: str) -> AnyResponse:
    """A redirect to another page of this agent."""
    return redirect(edge.front.path(path), 303)


def caller(edge: PageEdge) -> Principal:
    """The signed-in user. Raises NotSignedIn, also if the session's token was revoked."""
    holder = edge.sessions.find(request.cookies.get(signin.COOKIE))
    principal = edge.access.holder(holder) if holder else None
    if principal is None:
        raise NotSignedIn
    return principal


def require_visible(principal: Principal, task_id: str) -> None:
    """Raises TaskNotFound if the task belongs to a tenant that the caller may not see."""
    match = TASK_ID.fullmatch(task_id)
    if not match or not principal.sees(match["tenant"]):
        raise TaskNotFound(f"no task {task_id!r} for token {principal.name!r}; list the tasks to see which exist")


def reader(edge: PageEdge, task_id: str | None = None) -> Principal:
    """The signed-in user, checked for the role `read` and for access to the task. Raises NotSignedIn, TaskNotFound,
    AccessDenied."""
    principal = caller(edge)
    if task_id is not None:
        require_visible(principal, task_id)
    principal.require(Role.READ)
    return principal


def query_with(**chosen: str | None) -> Callable[[dict[str, Any]], str]:
    """A function that returns the query string of `chosen` with changes; a value of None removes the parameter."""

    def query(changes: dict[str, Any]) -> str:
        parameters = {name: value for name, value in {**chosen, **changes}.items() if value not in (None, "")}
        return f"?{urlencode(parameters)}" if parameters else ""

    return query


def refresh_seconds() -> int | None:
    """The interval at which the page reloads itself; None if it does not."""
    return REFRESH_SECONDS if request.args.get("refresh") == str(REFRESH_SECONDS) else None
