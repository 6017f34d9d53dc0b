"""The answers of one fixed ledger: python -m tests.golden.answers writes them to expected/."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from app.cli.root import cli
from app.config import policy
from app.domain.standing import Standing
from app.ledger.reading import comparing
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.ledger.store.decision_log import Decisions
from app.ledger.store.standings import Standings
from app.ledger.store.tables import TICKETS
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.pricing import book
from app.tasks.access import Access, Role
from app.tasks.service import TaskService
from app.tasks.workflow_client import WorkflowClient
from app.telemetry.metrics import Metrics
from app.web.api.handlers import LedgerApi
from app.web.factory import create_app
from app.web.server import WebServer
from tests.golden.store import BILL, FOLDER, load
from tests.web.fakes import FakeVitals, secret, token

EXPECTED = FOLDER / "expected"
ROOT = FOLDER.parent.parent
NOW = datetime(2026, 12, 24, tzinfo=UTC)
_PROCESS = re.compile(r"^(# \w+ )?(process|python)_.*\n", re.MULTILINE)
DIMENSIONS = "tenant,stage", "task", "workflow,step,tool", "provider,model", "outcome,day", "kind"
REPORTS = {f"cost report by {by}": ("cost", "report", "--by", by) for by in DIMENSIONS}
COMMANDS = {
    "cost report": ("cost", "report"),
    **REPORTS,
    "cost report repriced": ("cost", "report", "--by", "provider,model", "--prices", "config/prices.yaml"),
    "cost report top": ("cost", "report", "--by", "task", "--top", "3"),
    "cost failures": ("cost", "failures"),
    "cost reconcile": ("cost", "reconcile", "--bill", str(BILL.relative_to(ROOT))),
    "price show": ("price", "show", "--at", "2026-11-30"),
    "price show model": ("price", "show", "gpt-4o-mini", "--provider", "openai", "--at", "2026-11-30"),
    "price check": ("price", "check"),
    "provider list": ("provider", "list", "--at", "2026-11-30"),
    "provider show": ("provider", "show", "anthropic", "--at", "2026-11-30"),
    "provider use": ("provider", "use", "ollama", "--dry-run"),
    "doctor retries": ("doctor", "retries"),
    "task list": ("task", "list", "--limit", "200"),
}
# One of each kind: for all of them the answers would be megabytes.
TASKS = (
    "acme:T-1063",
    "brightly:T-1078",
    "bench:decided-38000",
    "bench:decided-38010",
    "bench:refused",
    "bench:model-status",
    "bench:model-cut",
    "bench:account-away",
    "bench:killed-worker",
    "bench:killed-daprd",
    "bench:waiting",
    "bench:ended",
    "bench:parked",
)
PATHS = {
    "GET index": "/",
    "GET healthz": "/healthz",
    "GET readyz": "/readyz",
    "GET openapi": "/openapi.json",
    "GET tasks": "/tasks?limit=200",
    "GET tasks waiting": "/tasks?status=waiting",
    "GET tasks first page": "/tasks?limit=2",
    "GET cost report": "/cost/report?by=tenant,stage",
    "GET cost failures": "/cost/failures",
    "GET unknown task": "/tasks/acme:nothing",
    "GET wrong query": "/tasks?limit=0",
    "GET no route": "/nothing",
}


class _Dapr(WorkflowClient):
    """Says of each task what the ledger says: both agree."""

    def __init__(self, standings: Standings) -> None:
        self._standings = standings

    def get(self, task_id: str) -> Standing | None:
        """Where it stands."""
        return self._standings.get(task_id).standing


def answers() -> Iterator[tuple[str, Any]]:
    """Every answer, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        load(ledger)
        engine = database.connect(f"sqlite:///{ledger}")
        writer = Writer(engine)
        with _environment(ledger):
            app = _app(engine, writer)
            server = WebServer(app, port=0)
            server.start()
            try:
                yield from _said(server.url)
                yield from _served(app)
            finally:
                server.stop()
        writer.close()
        engine.dispose()


def _app(engine: Engine, writer: Writer) -> Flask:
    standings = Standings(engine, writer, lambda: NOW)
    tickets, trail = Tickets(engine, writer, lambda: NOW), Decisions(engine, writer, lambda: NOW)
    rules = policy.load(ROOT / "config" / "policy.yaml")
    service = TaskService(tickets, standings, _Dapr(standings), rules, trail, lambda *_: None)
    prices, records, metrics = book.load(ROOT / "config" / "prices.yaml"), LedgerQueries(engine), Metrics()
    for record in records.records(_tasks(engine)).values():
        metrics.observe(record)
    ledger = LedgerApi(records, lambda bill: comparing.compare(engine, prices, bill), metrics.render)
    access = Access([token("root", Role.ADMIN)])
    return create_app(service, access, version="0", ledger=ledger, vitals=FakeVitals())


def _tasks(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(TICKETS.c.task_id).order_by(TICKETS.c.sequence)).scalars())


def _said(url: str) -> Iterator[tuple[str, Any]]:
    for name, words in COMMANDS.items():
        yield name, _ask(url, *words)
    for task_id in TASKS:
        yield f"task show {task_id}", _ask(url, "task", "show", task_id)
        yield f"record {task_id}", _ask(url, "record", task_id)


def _ask(url: str, *words: str) -> Any:
    remote = ("--url", url, "--token", secret("root")) if words[0] == "task" else ()
    result = CliRunner().invoke(cli, [*words, *remote, "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return {"exit": result.exit_code, "says": json.loads(result.stdout) if result.stdout else result.stderr}


def _served(app: Flask) -> Iterator[tuple[str, Any]]:
    client, headers = app.test_client(), {"Authorization": f"Bearer {secret('root')}"}
    of_tasks = {f"GET {part} {task_id}": f"/tasks/{task_id}{part}" for task_id in TASKS for part in ("", "/ticket")}
    for name, path in (PATHS | of_tasks).items():
        answer = client.get(path, headers=headers)
        yield name, {"status": answer.status_code, "says": answer.get_json()}
    reconciled = client.post(
        "/cost/reconcile", data=BILL.read_bytes(), headers=headers, content_type="application/json"
    )
    yield "POST cost reconcile", {"status": reconciled.status_code, "says": reconciled.get_json()}
    page = client.get("/metrics", headers=headers).get_data(as_text=True)
    yield "GET metrics", {"status": 200, "says": _PROCESS.sub("", page).splitlines()}


@contextmanager
def _environment(ledger: Path) -> Iterator[None]:
    """The settings name this ledger and nothing else of the machine's, and paths are as they are in the project."""
    before, folder = dict(os.environ), Path.cwd()
    for name in before:
        if name.startswith(("REFUND_AGENT_", "DAPR_")):
            del os.environ[name]
    os.environ |= {"REFUND_AGENT_LEDGER_URL": f"sqlite:///{ledger}", "REFUND_AGENT_STATE_DIR": str(ledger.parent)}
    os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


def file_of(name: str) -> Path:
    """Where an answer is kept."""
    return EXPECTED / (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") + ".json")


def main() -> None:
    """Writes all of them, and removes those that there are no more."""
    written = set()
    for name, answer in answers():
        file_of(name).write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
        written.add(file_of(name))
    for file in set(EXPECTED.glob("*.json")) - written:
        file.unlink()


if __name__ == "__main__":
    main()
