"""The agent's address and token, and the messages if one of them is wrong."""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.root import cli
from app.tasks.access import Access, make_local_token
from app.web.factory import create_app
from app.web.server import WebServer
from tests.cli.conftest import CommandLine
from tests.web.fakes import FakeTaskService, make_ticket, secret


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def only_line(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("secret", ["ü" * 40, "a b", "a\nb"])
def test_an_impossible_token_is_reported_and_not_shown(secret: str) -> None:
    result = CliRunner().invoke(cli, ["task", "list", "--token", secret])
    assert result.exit_code == 1
    assert "the token holds a character that no token has" in result.stderr
    assert secret not in result.stderr


@pytest.mark.parametrize(("number", "remedy"), [(13, "run this as the user who"), (30, "read-only"), (28, "make room")])
def test_a_file_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, number: int, remedy: str) -> None:
    def fail(_path: Path) -> str:
        raise OSError(number, os.strerror(number), ".state/token")

    monkeypatch.setattr("app.tasks.access.read_local_token", fail)
    result = CliRunner().invoke(cli, ["task", "list"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(f"error: .state/token: {os.strerror(number).lower()}; ")
    assert remedy in result.stderr


def test_the_local_token_opens_the_local_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = make_local_token(tmp_path / "state" / "token").record
    server = WebServer(create_app(FakeTaskService(), Access([record]), version="1"), port=0)
    server.start()
    monkeypatch.setenv("REFUND_AGENT_URL", server.url)
    assert invoke("task", "list").exit_code == 0
    server.stop()


def test_the_environment_names_agent_and_token(monkeypatch: pytest.MonkeyPatch, run: CommandLine) -> None:
    monkeypatch.setenv("REFUND_AGENT_URL", run.url + "/")
    monkeypatch.setenv("REFUND_AGENT_TOKEN", secret("root"))
    assert invoke("task", "list").exit_code == 0
    wrong = invoke("task", "list", "--token", "another")
    assert "is not known here" in only_line(wrong)


def test_a_missing_token_is_reported_with_the_remedy() -> None:
    line = only_line(invoke("task", "list"))
    assert "token is not there" in line
    assert "start the agent here once" in line


def test_a_token_file_open_to_others_is_not_used(tmp_path: Path) -> None:
    path = make_local_token(tmp_path / "state" / "token").path
    path.chmod(0o644)
    assert f"chmod 600 {path}" in only_line(invoke("task", "list"))


def test_a_missing_agent_is_reported_with_the_remedy() -> None:
    line = only_line(invoke("task", "list", "--url", "http://127.0.0.1:1", "--token", "t"))
    assert line == (
        "error: the agent does not answer at http://127.0.0.1:1 (ConnectError); "
        "start it with `make up`, or name another with --url"
    )


@pytest.mark.parametrize("url", ["localhost:8088", "ftp://x", "http://[", ""])
def test_an_invalid_address_is_refused(url: str) -> None:
    assert only_line(invoke("task", "list", "--url", url, "--token", "t"))


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUND_AGENT_WEB_PORT", "eighty")
    assert "REFUND_AGENT_WEB_PORT" in only_line(invoke("task", "list"))


@pytest.mark.parametrize("words", [("list",), ("show", "acme:T-1")])
def test_a_role_that_is_missing_is_named(run: CommandLine, words: tuple[str, ...]) -> None:
    line = only_line(run("task", *words, who="acme-submit"))
    assert "'acme-submit' has no role 'read'" in line


def test_another_server_at_the_address_is_detected() -> None:
    class OtherServer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = 200 if "list" not in self.path and "after" not in self.path else 500
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            """Keeps the test output free of request logs."""

    other_server = http.server.HTTPServer(("127.0.0.1", 0), OtherServer)
    threading.Thread(target=other_server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{other_server.server_port}"
    assert "did not answer with a TaskPage" in only_line(invoke("task", "list", "--url", url, "--token", "t"))
    refused = invoke("task", "list", "--after", "1", "--url", url, "--token", "t")
    assert "answered 500, but not as this agent does" in only_line(refused)
    other_server.shutdown()
    other_server.server_close()


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, run: CommandLine, service: FakeTaskService
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    service.submit(make_ticket())
    assert run("task", "show", "acme:T-1").exit_code == 0
