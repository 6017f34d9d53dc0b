"""The pages behind a real nginx with a plain `proxy_pass`: signing in, links, signing out."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.web.server import WebServer
from runtime.loopback import free_ports
from tests import debian
from tests.web.fakes import secret
from tests.web.test_front import app_at

_CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location {location} {{ proxy_pass http://127.0.0.1:{agent}{target}; }} }}
}}
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Installs nginx if it is missing."""
    debian.ensure_installed("nginx")


@pytest.fixture(params=[("/", ""), ("/refunds/", ""), ("/refunds/", "/")], ids=["root", "path stays", "path goes"])
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The public address of an agent behind nginx."""
    location, target = request.param
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}{location.rstrip('/')}"
    server = WebServer(app_at(address), port=0)
    server.start()
    values = {"folder": tmp_path, "port": port, "location": location, "agent": server.port, "target": target}
    (tmp_path / "nginx.conf").write_text(_CONF.format(**values))
    command = [str(debian.find_nginx()), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as nginx:
        try:
            _until_it_answers(f"{address}/healthz")
            yield address
        finally:
            nginx.terminate()
            nginx.wait(10)
            server.stop()


def _until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.05)


def test_a_browser_signs_in_and_goes_from_page_to_page(proxied: str) -> None:
    origin = proxied[: proxied.index("/", 8)] if "/" in proxied[8:] else proxied
    with httpx.Client(follow_redirects=True, trust_env=False, headers={"Accept": "text/html"}) as browser:
        assert browser.get(f"{proxied}/").url.path.endswith("/signin")
        for origin_header in ("https://evil.example", ""):
            refused = browser.post(
                f"{proxied}/signin", data={"token": secret("root")}, headers={"Origin": origin_header}
            )
            assert refused.status_code == 403
        form = {"token": secret("root"), "next": "/pages/tasks"}
        answer = browser.post(f"{proxied}/signin", data=form, headers={"Origin": origin})
        assert (answer.status_code, str(answer.url)) == (200, f"{proxied}/pages/tasks")
        prefix = proxied.removeprefix(origin)
        assert f'href="{prefix}/pages/tasks/acme:T-1"' in answer.text
        assert browser.get(f"{proxied}/pages/static/pages.css").status_code == 200
        assert browser.get(f"{proxied}/pages/inbox").status_code == 200
        out = browser.post(f"{proxied}/signout", headers={"Origin": origin})
        assert str(out.url) == f"{proxied}/signin"
        assert str(browser.get(f"{proxied}/pages/tasks").url).startswith(f"{proxied}/signin?next=")
