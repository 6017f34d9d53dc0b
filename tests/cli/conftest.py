"""Fixtures: a real web server with a fake task service, and the command line as its client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import opening
from app.cli.root import cli
from app.web.factory import create_app
from app.web.server import WebServer
from tests.ledgers import FakeRecords
from tests.records import task_record
from tests.web.fakes import FakeTaskService, make_access, secret


@dataclass(frozen=True)
class CommandLine:
    """Runs `refund-agent` against one agent, with a token."""

    url: str

    def __call__(self, *words: str, who: str = "root", stdin: bytes | None = None) -> Result:
        """Runs one command with --url and --token added, with stdout and stderr separate."""
        options = ["--url", self.url, "--token", secret(who)]
        return CliRunner().invoke(cli, [*words, *options], input=stdin)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides this machine's settings and this project's token file from the tests."""
    for name in list(os.environ):
        if name.startswith(("REFUND_AGENT_", "DAPR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REFUND_AGENT_STATE_DIR", str(tmp_path / "state"))
    # Nothing listens on port 1, while an agent may run at the usual ports.
    monkeypatch.setenv("REFUND_AGENT_WEB_PORT", "1")
    monkeypatch.setenv("REFUND_AGENT_DAPR_HTTP_PORT", "1")


@pytest.fixture
def service() -> FakeTaskService:
    return FakeTaskService()


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> FakeRecords:
    """A fake ledger with one task, instead of the one in the settings."""
    records = FakeRecords(task_record())
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", "sqlite://")
    monkeypatch.setattr(opening, "open_records", lambda: records)
    return records


@pytest.fixture
def server(service: FakeTaskService) -> Iterator[WebServer]:
    running = WebServer(create_app(service, make_access(), version="1.2.3"), port=0)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def run(server: WebServer) -> CommandLine:
    return CommandLine(server.url)
