"""Shared by the tests of pages: in-memory services, a fixed time, signing in, and reading a page's text and tags."""

from __future__ import annotations

import html
import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.domain.models import Case, Inbox, TaskPage, TaskStatus
from tests.web.fakes import FakeTaskService, secret

HERE = "http://localhost"
TASK = "acme:T-1"
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


class PagesTaskService(FakeTaskService):
    """The task service with the methods that only the pages use."""

    def newest(
        self, tenants: frozenset[str] | None, limit: int, before: str | None, status: TaskStatus | None = None
    ) -> TaskPage:
        """Newest first; the cursor is the number of the last task."""
        views = self.list(tenants, status, 1_000_000, None).tasks
        end = int(before) - 1 if before else len(views)
        page = list(enumerate(views, start=1))[:end][::-1][:limit]
        more = str(page[-1][0]) if page and page[-1][0] > 1 else None
        return TaskPage(tasks=tuple(view for _, view in page), next_after=more)

    def count(self, tenants: frozenset[str] | None, status: TaskStatus | None) -> int:
        """The number of tasks."""
        return len(self.list(tenants, status, 1_000_000, None).tasks)

    def inbox(
        self,
        tenants: frozenset[str] | None,
        narrowed_to: str | None,
        reason: str | None,
        asked_before: datetime | None,
        limit: int,
        after: str | None,
    ) -> Inbox:
        """The waiting tasks; the cursor is a position in the list."""
        waiting = self.list(tenants, TaskStatus.WAITING, 1_000_000, None).tasks
        matching = [
            view
            for view in waiting
            if narrowed_to in (None, view.tenant)
            and reason in (None, view.waiting_for)
            and (
                asked_before is None
                or (view.question and datetime.fromisoformat(view.question.asked_at) < asked_before)
            )
        ]
        start = int(after or 0)
        shown = matching[start : start + limit]
        return Inbox(
            cases=tuple(Case(task=view, ticket=self.ticket(view.task_id)) for view in shown),
            total=len(matching),
            reasons=dict(Counter(view.waiting_for or "" for view in waiting)),
            tenants=dict(Counter(view.tenant for view in waiting)),
            next_after=str(start + limit) if len(matching) > start + limit else None,
        )


class FakeSessions:
    """Sessions in memory, which never expire."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.started = 0

    def begin(self, holder: str) -> str:
        """Opens a session with an id as long as the real ones."""
        self.started += 1
        session_id = f"session-{self.started}-".ljust(43, "x")
        self.open[session_id] = holder
        return session_id

    def find(self, session_id: str | None) -> str | None:
        """The holder of the session, or None."""
        return self.open.get(session_id or "")

    def end(self, session_id: str | None) -> None:
        """Ends the session."""
        self.open.pop(session_id or "", None)


class Tags(HTMLParser):
    """The start tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Adds a tag."""
        self.found.append((tag, dict(attrs)))


def sign_in(browser: FlaskClient, who: str = "root", **options: str) -> TestResponse:
    form = {"token": secret(who)} | options
    return browser.post("/signin", data=form, headers={"Origin": HERE})


def text(answer: TestResponse) -> str:
    """The visible text of a page on one line."""
    body = re.sub(r"<svg.*?</svg>|<head>.*?</head>", "", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
