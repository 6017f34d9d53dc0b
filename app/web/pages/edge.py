"""What all pages share: what they need of the agent, who is signed in, how a template becomes an answer."""

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

EVERY_SECONDS = 10  # a page that is to look again by itself


class TasksForPages(Protocol):
    """What the pages need of the task service."""

    def get(self, task_id: str) -> TaskView:
        """Raises TaskNotFound, Unreachable."""

    def count(self, tenants: frozenset[str] | None, status: TaskStatus | None) -> int:
        """How many tasks there are."""

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
        """What the customer wrote. Raises TaskNotFound."""

    def decide(self, task_id: str, decision: Decision, note: str) -> tuple[TaskView, bool]:
        """Hands a decision over; True when the task has accepted it, False when nobody knows yet. Raises NotWaiting,
        DecisionRefused."""

    def note_denied(self, task_id: str, decision: Decision) -> None:
        """Notes an attempt of somebody who may not decide. Raises TaskNotFound."""

    def newest(
        self, tenants: frozenset[str] | None, limit: int, before: str | None, status: TaskStatus | None
    ) -> TaskPage:
        """A page, newest first; `before` is the cursor of the page before."""


class RecordsForPages(Protocol):
    """What the pages need of the ledger."""

    def record(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound, also for a task that was not recorded yet."""


@dataclass(frozen=True)
class PageEdge:
    """What every page shares."""

    service: TasksForPages
    access: Access
    records: RecordsForPages
    sessions: SessionStore
    front: Front
    clock: Callable[[], datetime]


class NotSignedIn(Exception):
    """There is no session."""


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A template as an answer."""
    return make_response(render_template(template, **values), status)


def to(edge: PageEdge, path: str) -> AnyResponse:
    """Leads to another page of ours."""
    return redirect(edge.front.path(path), 303)


def caller(edge: PageEdge) -> Principal:
    """Who is signed in. A token that was taken away opens nothing any more. Raises NotSignedIn."""
    holder = edge.sessions.find(request.cookies.get(signin.COOKIE))
    principal = edge.access.holder(holder) if holder else None
    if principal is None:
        raise NotSignedIn
    return principal


def seen(principal: Principal, task_id: str) -> None:
    """Raises TaskNotFound for a task of another tenant: it does not exist for the caller, whatever its roles are."""
    known = TASK_ID.fullmatch(task_id)
    if not known or not principal.sees(known["tenant"]):
        raise TaskNotFound(f"no task {task_id!r} for token {principal.name!r}; list the tasks there are")


def reader(edge: PageEdge, task_id: str | None = None) -> Principal:
    """The caller, who may read. Raises NotSignedIn, TaskNotFound, AccessDenied."""
    principal = caller(edge)
    if task_id is not None:
        seen(principal, task_id)
    principal.require(Role.READ)
    return principal


def query_with(**chosen: str | None) -> Callable[[dict[str, Any]], str]:
    """Makes the end of an address: what was chosen, with changes; None leaves a name out."""

    def query(changes: dict[str, Any]) -> str:
        named = {name: value for name, value in {**chosen, **changes}.items() if value not in (None, "")}
        return f"?{urlencode(named)}" if named else ""

    return query


def every() -> int | None:
    """How often the page is to look again, in seconds; None: when somebody asks."""
    return EVERY_SECONDS if request.args.get("refresh") == str(EVERY_SECONDS) else None
