"""A real agent web server over the fake service, and the command line to ask it."""

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
    """`refund-agent` against one agent, as the holder of a token."""

    url: str

    def __call__(self, *words: str, who: str = "root", stdin: bytes | None = None) -> Result:
        """One command with --url and --token added; output and errors apart."""
        options = ["--url", self.url, "--token", secret(who)]
        return CliRunner().invoke(cli, [*words, *options], input=stdin)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of this machine reaches a test, and no token file of this project."""
    for name in list(os.environ):
        if name.startswith(("REFUND_AGENT_", "DAPR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REFUND_AGENT_STATE_DIR", str(tmp_path / "state"))
    # Nothing listens on port 1, whatever runs on this machine at the usual ones.
    monkeypatch.setenv("REFUND_AGENT_WEB_PORT", "1")
    monkeypatch.setenv("REFUND_AGENT_DAPR_HTTP_PORT", "1")


@pytest.fixture
def service() -> FakeTaskService:
    return FakeTaskService()


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> FakeRecords:
    """A ledger with one task, in the place of the one that the settings name."""
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
