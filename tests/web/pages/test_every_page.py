"""Rules for all pages: security headers, error pages, style sheet, contrast."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from app.domain.errors import Unreachable
from tests.ledgers import FakeRecords
from tests.paths import ROOT
from tests.web.pages.visitor import TASK, PagesTaskService, Tags, sign_in, text

STATIC = ROOT / "app" / "web" / "static"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/signin", 200), ("/signout", 200), ("/pages/tasks", 200), (f"/pages/tasks/{TASK}", 200)),
        *(("/pages/tasks/acme:none", 404), ("/pages/tasks/no-task-id", 404), ("/pages/nothing/here", 404)),
    ],
)
def test_every_page_is_strict_about_what_a_browser_may_do(browser: FlaskClient, path: str, status: int) -> None:
    sign_in(browser)
    answer = browser.get(path)
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'self'", "script-src 'none'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    tags = Tags()
    tags.feed(answer.text)
    for tag, attributes in tags.found:
        assert tag not in ("script", "style", "iframe")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith("/")
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_api_keeps_its_own_headers_and_problems(browser: FlaskClient) -> None:
    answer = browser.get("/nothing")
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_an_unreachable_system_has_an_error_page(browser: FlaskClient, service: PagesTaskService) -> None:
    sign_in(browser)
    service.failure = Unreachable("the Dapr sidecar does not answer; see `refund-agent doctor`")
    answer = browser.get("/pages/tasks")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "The Dapr sidecar does not answer; see `refund-agent doctor`." in text(answer)


def test_an_internal_error_shows_only_its_id(
    browser: FlaskClient, records: FakeRecords, caplog: pytest.LogCaptureFixture
) -> None:
    sign_in(browser)
    records.failure = RuntimeError("the customer wrote: my card is 4111")
    answer = browser.get(f"/pages/tasks/{TASK}")
    assert (answer.status_code, answer.mimetype) == (500, "text/html")
    match = re.search(r"error ([0-9a-f]{32})", text(answer))
    assert match
    assert match[1] in caplog.text
    assert "4111" not in answer.text + caplog.text


def test_the_style_sheet_is_served_and_asks_for_nothing_else(browser: FlaskClient) -> None:
    for name, mimetype in (("pages.css", "text/css"), ("icon.svg", "image/svg+xml")):
        with browser.get(f"/pages/static/{name}") as answer:
            assert (answer.status_code, answer.mimetype) == (200, mimetype)
            assert not re.search(
                r"url\(|@import|https?:", answer.get_data(as_text=True).replace("http://www.w3.org/2000/svg", "")
            )
    assert browser.get("/pages/static/../pages/routes.py").status_code in (303, 404)


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_bars_have_enough_contrast(scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "pages.css").read_text(), flags=re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[("light", "dark").index(scheme)]))
    for ground in ("paper", "panel"):
        for ink in ("text", "quiet", "link", "bad", "good", "wait"):
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ink in ("text", "quiet", "bad", "good"):
        assert _contrast(colours[ink], colours["bad-paper"]) >= 4.5, ink
    for ink in ("quiet", "wait", "text"):
        assert _contrast(colours[ink], colours["band"]) >= 4.5, ink
    for shape in ("attempt", "call", "bad"):
        assert _contrast(colours[shape], colours["paper"]) >= 3, shape
    assert _contrast(colours["call"], colours["attempt"]) >= 3
