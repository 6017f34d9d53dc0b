"""What the pages' tests share: a desk that lists the newest first, a clock, a visitor who signs in and reads."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
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


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time."""
        return self.now


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
