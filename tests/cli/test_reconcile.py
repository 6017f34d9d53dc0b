"""`cost reconcile` with bills from files and from the sandbox, for people and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import insert

from app.cli.reconcile import SHOWN_ROWS
from app.finance.reconciliation.reconciliation_types import DifferenceCause, MoneyOutcome
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from app.pricing.charge_types import CallRecord
from tests.cli.reading import ask, json_answer
from tests.finance.reconciliation.billing import at, call, failed
from tests.paths import ROOT

DOCUMENT = (ROOT / "docs" / "cost-model.md").read_text()
HEADER = "time;model;input_tokens;cached_tokens;output_tokens\n"
PAID = (call(1), call(2, 5))


def journal_row(call: CallRecord) -> dict[str, Any]:
    """The journal's row of a call."""
    usage = asdict(call.usage)
    named = {column.name for column in MODEL_CALLS.columns}
    values = {name: value for name, value in (asdict(call) | usage).items() if name in named}
    return values | {"state": call.state.value, "usage_basis": call.usage.basis.value, "model": call.model or None}


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A ledger with two paid calls; returns a function that adds further calls."""
    monkeypatch.setenv("REFUND_AGENT_STATE_DIR", str(tmp_path))
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")

    def add(*calls: CallRecord) -> None:
        with engine.begin() as connection:
            connection.execute(insert(MODEL_CALLS), [journal_row(call) for call in calls])

    add(*PAID)
    yield add
    engine.dispose()


def line(seconds: float, entered: int, output: int = 10) -> str:
    return f"{at(seconds).isoformat()};model-a;{entered};40;{output}\n"


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    """The provider's bill for the two calls."""
    file = tmp_path / "bill.csv"
    file.write_text(HEADER + line(0.5, 100) + line(5.5, 200))
    return file


class Sandbox:
    """Answers GET /bill with the test's status and body."""

    def __init__(self) -> None:
        sandbox = self
        self.status, self.body = 200, b"{}"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(sandbox.status if self.path == "/bill" else 404)
                self.send_header("Content-Length", str(len(sandbox.body)))
                self.end_headers()
                self.wfile.write(sandbox.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    running = Sandbox()
    thread = Thread(target=running.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


def test_a_bill_that_agrees(journal: Any, bill: Path) -> None:
    result = ask("cost", "reconcile", "--bill", str(bill))
    assert result.exit_code == 0, result.stderr
    first, second, *_ = result.stdout.splitlines()
    assert first == f"{bill}: 320 tokens billed, 320 in our record; they agree to the token."
    assert second == "2 calls, 2 of them on the bill to the token"
    assert re.search(r"model-a +2026-11-22 12:00 +300 \+ 20 +300 \+ 20 +0", result.stdout)


def test_what_is_unexplained_is_an_exit_code_of_one(journal: Any, bill: Path) -> None:
    bill.write_text(bill.read_text() + line(0.7, 500))
    result = ask("cost", "reconcile", "--bill", str(bill))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].endswith("510 tokens are unexplained.")
    assert re.search(r"requests that no call accounts for +line 4 +0 +500 \+ 10 +\+510", result.stdout)
    view = json.loads(ask("cost", "reconcile", "--bill", str(bill), "--json").stdout)
    assert (view["unexplained_tokens"], view["difference_tokens"]) == (510, 510)
    assert [(row["cause"], row["place"]) for row in view["rows"]] == [("unknown", "line 4")]


def test_what_is_explained_names_task_stage_and_call(journal: Any, bill: Path) -> None:
    journal(failed(3, 9, model="model-a"))
    bill.write_text(bill.read_text() + line(9.5, 300, 17))
    result = ask("cost", "reconcile", "--bill", str(bill))
    assert result.exit_code == 0, result.stdout
    assert "the difference of -983 tokens is explained by failed calls." in result.stdout
    assert re.search(r"failed calls +acme:T-3 +classify +f-3 +line 4 +300 \+ 1,000 +300 \+ 17 +-983", result.stdout)


def test_a_part_of_the_period(journal: Any, bill: Path) -> None:
    journal(call(4, 7200))
    hours = ["--since", "2026-11-22T12:00", "--until", "2026-11-22T13:00"]
    assert json_answer("cost", "reconcile", "--bill", str(bill), *hours)["calls"] == {
        "compared": 2,
        "agreeing": 2,
        "outside": 0,
        "other_providers": {},
        "unknown_provider": {"calls": 0, "not_on_bill": 0},
    }
    assert ask("cost", "reconcile", "--bill", str(bill)).exit_code == 1
    wrong = ask("cost", "reconcile", "--bill", str(bill), "--since", "2026-11-22T13:00", "--until", "2026-11-22T13:00")
    assert (wrong.exit_code, "is not after --since" in wrong.stderr) == (2, True)


def test_models_without_a_price_are_named(journal: Any, bill: Path) -> None:
    assert (
        "320 tokens of model model-a of conversation.openai have no price"
        in ask("cost", "reconcile", "--bill", str(bill)).stdout
    )
    assert json_answer("cost", "reconcile", "--bill", str(bill))["unpriced"] == [
        {"provider": "conversation.openai", "model": "model-a", "tokens": 320}
    ]


def test_many_rows_are_cut_for_people_only(journal: Any, bill: Path) -> None:
    bill.write_text(bill.read_text() + "".join(line(60 + number, 700 + number) for number in range(SHOWN_ROWS + 3)))
    result = ask("cost", "reconcile", "--bill", str(bill))
    assert "3 more rows; --json shows all" in result.stderr
    assert len(json.loads(ask("cost", "reconcile", "--bill", str(bill), "--json").stdout)["rows"]) == SHOWN_ROWS + 3


def test_the_sandbox_is_asked_without_a_file(journal: Any, sandbox: Sandbox) -> None:
    rows = [
        {"id": n, "at": at(start).isoformat(), "protocol": "openai", "model": "model-a", "input_tokens": 100 * n}
        | {"cached_tokens": 40, "output_tokens": 10, "status": 200, "billed": True}
        for n, start in ((1, 0.5), (2, 5.5))
    ]
    sandbox.body = json.dumps({"rows": rows}).encode()
    view = json_answer("cost", "reconcile", "--sandbox-url", sandbox.url)
    assert (view["unexplained_tokens"], view["bill"]["format"]) == (0, "sandbox")


def test_calls_that_the_sandboxs_bill_cannot_hold(journal: Any, sandbox: Sandbox, bill: Path) -> None:
    """A component with another endpoint keeps its type, so its provider is the same."""
    rows = [
        {"id": 1, "at": at(0.5).isoformat(), "protocol": "openai", "model": "sandbox-small", "input_tokens": 100}
        | {"cached_tokens": 40, "output_tokens": 10, "status": 200, "billed": True}
    ]
    sandbox.body = json.dumps({"rows": rows}).encode()
    result = ask("cost", "reconcile", "--sandbox-url", sandbox.url)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"note: the bill is the sandbox's ({sandbox.url}/bill), which has no request of model model-a: 2 calls of "
        f"component {PAID[0].component} went to another endpoint; give its bill with --bill FILE"
    ]
    bill.write_text(HEADER + line(0.5, 900).replace("model-a", "model-b"))
    assert "--bill" not in ask("cost", "reconcile", "--bill", str(bill)).stderr


def test_a_sandbox_that_is_away_or_answers_wrongly(journal: Any, sandbox: Sandbox) -> None:
    away = ask("cost", "reconcile", "--sandbox-url", "http://127.0.0.1:9")
    assert away.exit_code == 1
    assert (
        "error: the sandbox's bill does not answer at http://127.0.0.1:9/bill (ConnectError); start it" in away.stderr
    )
    sandbox.status = 500
    wrong = ask("cost", "reconcile", "--sandbox-url", sandbox.url)
    assert "answers with status 500, not with a bill; check --sandbox-url" in wrong.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty; export it again"),
        (b"\xff\xfe", "it is empty; export it again"),
        (b"time;mod\xe9l", "byte 8 is not UTF-8 (0xe9); save it as UTF-8"),
        (b"PK\x03\x04", "it is an Excel workbook or another zip archive; save the sheet as CSV (UTF-8)"),
        ((HEADER + "2026-11-22;m;x;0;1\n").encode(), "line 2: input_tokens 'x' is not a number of tokens or requests"),
        (None, "No such file or directory; give the path of the provider's bill"),
    ],
)
def test_a_bad_file_is_one_line_with_the_remedy(journal: Any, bill: Path, content: bytes | None, said: str) -> None:
    bill.unlink()
    if content is not None:
        bill.write_bytes(content)
    result = ask("cost", "reconcile", "--bill", str(bill))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: bill {bill}")
    assert said in line


def test_an_empty_period_is_no_agreement(journal: Any, bill: Path) -> None:
    result = ask("cost", "reconcile", "--bill", str(bill), "--since", "2026-12")
    assert result.exit_code == 1
    assert "nothing was compared: neither bill nor record has anything in that time (" in result.stdout
    assert "rows of the bill are of another time" in result.stdout
    assert "agree" not in result.stdout


@pytest.mark.parametrize(
    "command", [("cost", "report"), ("cost", "failures"), ("price", "check"), ("cost", "reconcile")]
)
def test_a_missing_ledger_file_is_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    file = tmp_path / "typo.sqlite"
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", f"sqlite:///{file}")
    result = ask(*command)
    if command != ("price", "check"):  # which needs none, and says so
        assert (result.exit_code, f"no ledger: {file} is not there" in result.stderr) == (1, True)
    assert not file.exists()


def test_without_a_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUND_AGENT_STATE_DIR", str(tmp_path))
    result = ask("cost", "reconcile")
    assert (result.exit_code, "no ledger" in result.stderr) == (1, True)


def test_every_key_and_every_cause_is_documented(journal: Any, bill: Path) -> None:
    section = DOCUMENT.split("## Reconciling with the provider's bill\n")[1]
    documented = set(re.findall(r"\w+", section))
    bill.write_text((bill.read_text() + line(0.7, 500)).replace("\n", ";0.01\n").replace("0.01", "cost_usd", 1))
    view = json.loads(ask("cost", "reconcile", "--bill", str(bill), "--json").stdout)
    keys = {*view, *view["bill"], *view["calls"], *view["cells"][0], *view["rows"][0], *view["unpriced"][0]}
    keys |= {*view["record"], *view["cells"][0]["record"], *view["money"][0]}
    assert keys - documented == set()
    assert {cause.value for cause in DifferenceCause if cause is not DifferenceCause.AGREES} - documented == set()
    assert {outcome.value for outcome in MoneyOutcome} - documented == set()


def test_a_bill_in_several_files_or_a_folder(journal: Any, bill: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    first, second = folder / "a.csv", folder / "b.CSV"
    first.write_bytes((HEADER + line(0.5, 100)).encode("utf-16"))
    second.write_text("sep=;\n" + HEADER + line(5.5, 200))
    for words in (("--bill", str(first), str(second)), (str(folder),), ("--bill", str(folder / "*"))):
        result = ask("cost", "reconcile", *words)
        assert result.exit_code == 0, result.stdout + result.stderr
        assert "they agree to the token" in result.stdout
    assert ask("cost", "reconcile", str(first)).exit_code == 1
    (tmp_path / "nothing").mkdir()
    assert "the folder has no file that ends with .json" in ask("cost", "reconcile", str(tmp_path / "nothing")).stderr


def test_money_that_differs_is_an_exit_code_of_one(journal: Any, bill: Path) -> None:
    bill.write_text(bill.read_text().replace("\n", ";0.01\n").replace("0.01", "cost_usd", 1))
    result = ask("cost", "reconcile", "--bill", str(bill))
    assert result.exit_code == 1
    assert "they agree to the token. 0.020000 USD billed, 0.000000 by our prices; 1 of 1 sums differ" in result.stdout
    assert (
        "compared: models, times, input tokens, output tokens, cached tokens, requests, money in USD" in result.stdout
    )
    assert "0.020000 USD billed, nothing by our prices: billed, and we have no charge for it" in result.stdout
