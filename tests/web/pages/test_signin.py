"""Signing in and out: form, cookie, session, and forms from other origins."""

from __future__ import annotations

import html
import re
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from app.tasks.access import digest_of
from app.web import signin
from app.web.signin import COOKIE, LIFETIME
from tests.web.fakes import secret
from tests.web.pages.visitor import HERE, TASK, FakeSessions, sign_in, text


@pytest.mark.parametrize("path", ["/pages/tasks", f"/pages/tasks/{TASK}", "/pages/tasks?before=3"])
def test_without_a_session_every_page_leads_to_the_form_and_back(browser: FlaskClient, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 303
    assert urlsplit(answer.location).path == "/signin"
    form = browser.get(answer.location)
    assert form.status_code == 200
    wanted = re.search(r'name="next" value="([^"]*)"', form.text)
    assert wanted
    assert sign_in(browser, next=html.unescape(wanted[1])).location == path


def test_the_token_is_not_sent_back(browser: FlaskClient) -> None:
    form = browser.get("/signin").text
    assert re.search(r'<input id="token" name="token" type="password" autocomplete="off"', form)
    answer = sign_in(browser)
    assert (answer.status_code, answer.location) == (303, "/pages/tasks")
    assert browser.get(answer.location).status_code == 200
    assert secret("root") not in str(answer.headers) + answer.text


def test_a_token_with_approve_only_is_redirected_to_the_inbox(browser: FlaskClient) -> None:
    sign_in(browser, who="acme-approve")
    answer = browser.get("/pages/tasks")
    assert (answer.status_code, urlsplit(answer.location).path) == (303, "/pages/inbox")
    inbox = browser.get("/pages/inbox").text
    assert 'href="/pages/tasks"' not in inbox
    assert 'href="/pages/inbox"' in browser.get(f"/pages/tasks/{TASK}").text, "an error leads there too"


def test_the_cookie_is_for_this_site_and_no_script(browser: FlaskClient) -> None:
    sign_in(browser)
    cookie = browser.get_cookie(COOKIE)
    assert cookie
    assert (cookie.http_only, cookie.same_site, cookie.path, cookie.secure) == (True, "Strict", "/", False)
    assert cookie.max_age == LIFETIME.total_seconds() == 12 * 3600
    assert len(cookie.value) >= 43


@pytest.mark.parametrize(("base", "origin"), [("https://localhost", "https://localhost"), (HERE, "https://localhost")])
def test_over_https_the_cookie_is_secure(browser: FlaskClient, base: str, origin: str) -> None:
    answer = browser.post("/signin", data={"token": secret("root")}, headers={"Origin": origin}, base_url=base)
    assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "token", ["", "wrong", secret("root")[:-1], "Bearer " + secret("root"), "\udcff", "x" * 10_000]
)
def test_a_wrong_token_gets_the_form_again_and_no_session(browser: FlaskClient, token: str) -> None:
    answer = browser.post("/signin", data={"token": token.encode("utf-8", "surrogateescape")}, headers={"Origin": HERE})
    assert answer.status_code == 401
    assert "This token is not known here" in text(answer)
    assert 'type="password"' in answer.text
    assert "Set-Cookie" not in answer.headers
    assert not token or token not in answer.text
    assert browser.get("/pages/tasks").status_code == 303


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost.evil.example", "http://localhost:81"]
)
@pytest.mark.parametrize("path", ["/signin", "/signout"])
def test_a_form_from_another_origin_is_refused(browser: FlaskClient, origin: str, path: str) -> None:
    if path == "/signout":
        sign_in(browser)
    answer = browser.post(path, data={"token": secret("root")}, headers={"Origin": origin} if origin else {})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers
    assert browser.get("/pages/tasks").status_code == (200 if path == "/signout" else 303)


@pytest.mark.parametrize(
    "wanted",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "/pages//evil.example", "javascript:alert(1)"),
        *("/pages\\evil", "/pages/tasks\r\nX: y", "/tasks", "pages/tasks", "/pagesevil", "", "/pages/@evil.example"),
    ],
)
def test_a_sign_in_redirects_only_to_the_agents_pages(browser: FlaskClient, wanted: str) -> None:
    assert sign_in(browser, next=wanted).location == "/pages/tasks"


def test_after_signing_out_the_old_cookie_is_invalid(browser: FlaskClient) -> None:
    sign_in(browser)
    cookie = browser.get_cookie(COOKIE)
    assert cookie
    answer = browser.post("/signout", headers={"Origin": HERE})
    assert (answer.status_code, answer.location) == (303, "/signin")
    assert browser.get_cookie(COOKIE) is None
    browser.set_cookie(COOKIE, cookie.value)
    assert browser.get("/pages/tasks").status_code == 303


def test_signing_in_again_ends_the_session_before(browser: FlaskClient) -> None:
    sign_in(browser)
    before = browser.get_cookie(COOKIE)
    sign_in(browser, "acme-read")
    after = browser.get_cookie(COOKIE)
    assert before
    assert after
    assert before.value != after.value
    browser.set_cookie(COOKIE, before.value)
    assert browser.get("/pages/tasks").status_code == 303


def test_a_session_of_a_revoked_token_is_invalid(browser: FlaskClient, sessions: FakeSessions) -> None:
    sign_in(browser)
    for session_id in sessions.open:
        sessions.open[session_id] = "0" * 64
    assert browser.get("/pages/tasks").status_code == 303


def test_a_session_stores_the_tokens_digest(browser: FlaskClient, sessions: FakeSessions) -> None:
    sign_in(browser)
    assert list(sessions.open.values()) == [digest_of(secret("root"))]


def test_local_pages_are_accepted() -> None:
    for page in (
        "/pages",
        "/pages/tasks",
        "/pages/tasks/acme:T-1",
        "/pages/tasks/acme%3AT-1",
        "/pages/tasks?before=12",
    ):
        assert signin.local_page(page) == page
    assert signin.local_page(None) == signin.HOME
