"""What the pages' tests share: a service that lists the newest first, a clock, a visitor who signs in and reads."""

from __future__ import annotations

import html
import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.domain.models import Case, Inbox, TaskPage, TaskStatus, TaskView
from tests.web.fakes import FakeTaskService, secret

HERE = "http://localhost"
TASK = "acme:T-1"
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


class PagesTaskService(FakeTaskService):
    """A service that lists the newest first."""

    def newest(
        self, tenants: frozenset[str] | None, limit: int, before: str | None, status: TaskStatus | None = None
    ) -> TaskPage:
        """The cursor is the number of the last task."""
        views = self.list(tenants, status, 1_000_000, None).tasks
        end = int(before) - 1 if before else len(views)
        page = list(enumerate(views, start=1))[:end][::-1][:limit]
        more = str(page[-1][0]) if page and page[-1][0] > 1 else None
        return TaskPage(tasks=tuple(view for _, view in page), next_after=more)

    def count(self, tenants: frozenset[str] | None, status: TaskStatus | None) -> int:
        """How many there are."""
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
        """What waits; the cursor is a number of the list."""
        waiting = self.list(tenants, TaskStatus.WAITING, 1_000_000, None).tasks
        found = [
            view
            for view in waiting
            if narrowed_to in (None, view.tenant)
            and reason in (None, view.waiting_for)
            and (
                asked_before is None
                or (view.question and datetime.fromisoformat(view.question.asked_at) < asked_before)
            )
        ]
        begin = int(after or 0)
        shown = found[begin : begin + limit]
        return Inbox(
            cases=tuple(Case(task=view, ticket=self.ticket(view.task_id)) for view in shown),
            total=len(found),
            reasons=dict(Counter(view.waiting_for or "" for view in waiting)),
            tenants=dict(Counter(view.tenant for view in waiting)),
            next_after=str(begin + limit) if len(found) > begin + limit else None,
        )


def _asked_at(view: TaskView) -> datetime:
    return datetime.fromisoformat(view.question.asked_at if view.question else view.created_at)


class FakeSessions:
    """Sessions in memory, which never end by themselves."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.begun = 0

    def begin(self, holder: str) -> str:
        """As long an id as the real ones."""
        self.begun += 1
        session_id = f"session-{self.begun}-".ljust(43, "x")
        self.open[session_id] = holder
        return session_id

    def find(self, session_id: str | None) -> str | None:
        """The holder."""
        return self.open.get(session_id or "")

    def end(self, session_id: str | None) -> None:
        """Forgets it."""
        self.open.pop(session_id or "", None)


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.found.append((tag, dict(attrs)))


def sign_in(browser: FlaskClient, who: str = "root", **options: str) -> TestResponse:
    form = {"token": secret(who)} | options
    return browser.post("/signin", data=form, headers={"Origin": HERE})


def text(answer: TestResponse) -> str:
    """What a reader sees of a page, on one line."""
    body = re.sub(r"<svg.*?</svg>|<head>.*?</head>", "", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
