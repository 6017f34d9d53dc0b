"""The agent behind a reverse proxy: the setting gives the public address, and headers are ignored."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.domain.errors import ConfigurationError
from app.web.factory import create_app
from app.web.front import make_front
from app.web.pages import make_pages
from app.web.signin import COOKIE
from tests.ledgers import FakeRecords
from tests.web.fakes import make_access, make_ticket, secret
from tests.web.pages.visitor import NOW, FakeSessions, PagesTaskService, Tags, text

PUBLIC = "https://tools.example.com/refunds"
UPSTREAM = "http://127.0.0.1:8088"  # as nginx asks with a plain proxy_pass


def app_at(public_url: str) -> Flask:
    """An agent with one task."""
    service, access, records, front = PagesTaskService(), make_access(), FakeRecords(), make_front(public_url)
    service.submit(make_ticket())
    pages = make_pages(service, access, records, FakeSessions(), lambda: NOW, front)
    return create_app(service, access, version="1", pages=pages, front=front)


@pytest.fixture
def client() -> FlaskClient:
    return app_at(PUBLIC).test_client(use_cookies=False)


def sign_in(client: FlaskClient, origin: str, path: str = "/refunds/signin", **headers: str) -> tuple[int, str, str]:
    """Status, address and cookie of the answer, or the text of a refusal."""
    sent = {"Origin": origin, **headers}
    answer = client.post(path, data={"token": secret("root")}, headers=sent, base_url=UPSTREAM)
    return answer.status_code, answer.location or text(answer), answer.headers.get("Set-Cookie", "")


@pytest.mark.parametrize("path", ["/signin", "/refunds/signin"])
@pytest.mark.parametrize(
    "origin", ["https://tools.example.com", "https://tools.example.com:443", "HTTPS://Tools.Example.com"]
)
def test_a_form_from_the_public_address_is_accepted(client: FlaskClient, path: str, origin: str) -> None:
    status, location, cookie = sign_in(client, origin, path)
    assert (status, location) == (303, "/refunds/pages/tasks")
    assert {"Secure", "HttpOnly", "Path=/refunds", "SameSite=Strict"} <= set(cookie.split("; "))


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://tools.example.com", "https://tools.example.com:444", "null", ""),
        *("https://tools.example.com.evil.example", "https://evil.example/tools.example.com", "http://127.0.0.1:8089"),
    ],
)
def test_a_form_from_another_origin_is_refused(client: FlaskClient, origin: str) -> None:
    status, message, cookie = sign_in(client, origin)
    assert (status, cookie) == (403, "")
    assert f"its origin is {origin or '(none)'}, the requested host is 127.0.0.1:8088" in message
    assert f"REFUND_AGENT_PUBLIC_URL is {PUBLIC}" in message


def test_forwarded_headers_are_ignored(client: FlaskClient) -> None:
    claims = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    assert sign_in(client, "https://evil.example", **claims)[0] == 403
    without = app_at("").test_client(use_cookies=False)
    assert sign_in(without, "https://evil.example", "/signin", **claims)[0] == 403
    assert sign_in(client, "https://tools.example.com", **claims)[0] == 303


def test_without_the_setting_the_refusal_names_it_and_the_origin() -> None:
    status, message, _ = sign_in(app_at("").test_client(), "https://tools.example.com", "/signin")
    assert status == 403
    assert "origin is https://tools.example.com, the requested host is 127.0.0.1:8088" in message
    assert "set REFUND_AGENT_PUBLIC_URL to the address that the browser shows" in message


def test_the_agents_own_address_still_works(client: FlaskClient) -> None:
    status, location, cookie = sign_in(client, UPSTREAM, "/signin")
    assert (status, location) == (303, "/refunds/pages/tasks")
    assert "Secure" not in cookie


def test_every_link_form_and_redirect_has_the_prefix(client: FlaskClient) -> None:
    cookie = sign_in(client, "https://tools.example.com")[2].partition(";")[0]
    for path in (
        "/pages/tasks",
        "/pages/tasks/acme:T-1",
        "/signin",
        "/signout",
        "/pages/nothing",
        "/pages/tasks/acme:x",
    ):
        answer = client.get(f"/refunds{path}", headers={"Cookie": cookie}, base_url=UPSTREAM)
        tags = Tags()
        tags.feed(answer.text)
        links = [
            value for _, attributes in tags.found for name, value in attributes.items() if name in ("href", "action")
        ]
        assert links
        assert [link for link in links if not str(link).startswith("/refunds/")] == []
    for path, leads_to in (
        ("/refunds", "/refunds/pages/tasks"),
        ("/refunds/", "/refunds/pages/tasks"),
        ("/refunds/pages", "/refunds/pages/tasks"),
        ("/refunds/pages/tasks?before=3", "/refunds/signin?next=/pages/tasks%3Fbefore%3D3"),
    ):
        answer = client.get(path, headers={"Accept": "text/html"}, base_url=UPSTREAM)
        assert answer.location == leads_to, path
    assert client.get("/refundsx/pages/tasks").status_code == 404


def test_the_api_is_behind_the_prefix_too(client: FlaskClient) -> None:
    headers = {"Authorization": f"Bearer {secret('root')}"}
    body = {"tenant": "acme", "ticket_id": "T-9", "customer_id": "C-1", "text": "x"}
    answer = client.post("/refunds/tasks", json=body, headers=headers)
    assert (answer.status_code, answer.location) == (201, "/refunds/tasks/acme:T-9")
    assert client.get(answer.location, headers=headers).status_code == 200
    document = client.get("/refunds/openapi.json").json
    assert document is not None
    assert document["servers"] == [{"url": "/refunds"}]


def test_signing_out_deletes_the_cookie(client: FlaskClient) -> None:
    cookie = sign_in(client, "https://tools.example.com")[2].partition(";")[0]
    sent = {"Cookie": cookie, "Origin": "https://tools.example.com"}
    answer = client.post("/refunds/signout", headers=sent, base_url=UPSTREAM)
    assert answer.location == "/refunds/signin"
    assert re.match(rf"{COOKIE}=;.*Path=/refunds", answer.headers["Set-Cookie"])


@pytest.mark.parametrize(
    "url",
    [
        *(
            "tools.example.com",
            "ftp://tools.example.com",
            "https://",
            "https://a b",
            "https://a/b?c=d",
            "https://a/b#c",
        ),
        *("https://a//b", "https://user@a", "https://a/b/../c d", "https://a:http", "javascript://a"),
    ],
)
def test_a_malformed_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"REFUND_AGENT_PUBLIC_URL.*such as https://tools"):
        make_front(url)


@pytest.mark.parametrize(
    ("url", "origin", "prefix"),
    [
        ("https://Tools.Example.com/refunds/", "https://tools.example.com", "/refunds"),
        ("http://[::1]:8080", "http://[::1]:8080", ""),
        ("https://a:443/x/y", "https://a", "/x/y"),
        ("", "", ""),
    ],
)
def test_an_address_is_normalized_as_browsers_do(url: str, origin: str, prefix: str) -> None:
    front = make_front(url)
    assert (front.origin, front.prefix) == (origin, prefix)


@pytest.mark.parametrize(
    ("accept", "redirected"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("*/*", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_the_root_redirects_a_browser_to_the_pages_and_gives_a_program_the_index(accept: str, redirected: bool) -> None:
    answer = app_at("").test_client().get("/", headers={"Accept": accept})
    if redirected:
        assert (answer.status_code, answer.location) == (303, "/pages/tasks")
    else:
        assert answer.json == {
            "name": "refund-agent",
            "version": "1",
            "description": "/openapi.json",
            "tasks": "/tasks",
            "pages": "/pages/tasks",
        }
