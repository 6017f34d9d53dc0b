"""What the pages' tests share: a desk that lists the newest first, a clock, a visitor who signs in and reads."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.models import TaskPage
from tests.web.fakes import FakeDesk, secret

HERE = "http://localhost"
TASK = "acme:T-1"


class PagesDesk(FakeDesk):
    """A desk that lists the newest first."""

    def newest(self, tenants: frozenset[str] | None, limit: int, before: str | None) -> TaskPage:
        """The cursor is the number of the last task."""
        views = self.list(tenants, None, 1_000_000, None).tasks
        end = int(before) - 1 if before else len(views)
        page = list(enumerate(views, start=1))[:end][::-1][:limit]
        more = str(page[-1][0]) if page and page[-1][0] > 1 else None
        return TaskPage(tasks=tuple(view for _, view in page), next_after=more)


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
