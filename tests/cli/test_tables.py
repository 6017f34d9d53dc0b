"""Every table of the command line, on narrow and wide screens: each number and id is complete."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import bootstrap
from app.cli import history, provider, screen
from app.cli.screen import Column, ColumnKind, TablePage, fact_lines, lay_out
from app.dapr.history.entries import list_events
from app.domain.models import TaskStatus
from app.ledger.audit.rebuilding import Rebuilt
from app.providers.provider_check import ProbeVerdict
from app.providers.provider_schemas import ProbeView, ProviderCheckView
from app.providers.switch import Switch
from tests.cli.books import RefundBookServer
from tests.cli.conftest import CommandLine
from tests.cli.reading import ask
from tests.cli.test_demo import book, settle_correctly
from tests.cli.test_reconcile import HEADER, line
from tests.cli.test_reconcile import journal as journal  # a fixture
from tests.dapr.history.told import Told
from tests.finance.failures.tasks import crashed, failed, fleet
from tests.ledgers import FakeRecords
from tests.paths import ROOT
from tests.records import task_record
from tests.web.fakes import FakeTaskService, make_ticket

WIDTHS = (40, 80, 120)
CLI = ROOT / "app" / "cli"
TICKET = "T-2026-11-30-0000000000000000000000000000000042"
TASK = f"nordwind-handelsgesellschaft:{TICKET}"
HUGE = Decimal(9_876_543_210)


class Seen:
    """Checks every laid-out table: nothing in it may be broken or lost."""

    def __init__(self) -> None:
        self.callers: set[tuple[str, str]] = set()
        self.width: int | None = None
        self.longest = 0

    def lay_out(self, columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None) -> TablePage:
        cells = [tuple(row) for row in rows]
        page = lay_out(columns, cells, width)
        self._called()
        text = "\n".join([*page.lines, *(f"{title} {value}" for title, value in page.common)])
        for place, column in enumerate(columns):
            for cell in (row[place] for row in cells if column.title not in page.left_out):
                assert set(cell.split()) <= set(text.split()), cell
                if column.kind is not ColumnKind.PROSE and (width is None or len(cell) <= width - 4):
                    assert re.search(rf"(?:^|\s){re.escape(cell)}(?:\s|$)", text, re.MULTILINE), cell
        self._measure(page.lines)
        return page

    def fact_lines(self, pairs: Iterable[tuple[str, str]], width: int | None) -> tuple[str, ...]:
        facts = list(pairs)
        lines = fact_lines(facts, width)
        self._called()
        assert {word for pair in facts for text in pair for word in text.split()} <= set(" ".join(lines).split())
        self._measure(lines)
        return lines

    def _called(self) -> None:
        code = sys._getframe(3).f_code
        self.callers.add((Path(code.co_filename).name, code.co_name))

    def _measure(self, lines: Iterable[str]) -> None:
        """Asserts that a line exceeds the screen only if it is one unbreakable word."""
        for text in lines:
            assert self.width is None or len(text) <= self.width or len(text.split()) == 1, text


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    watching = Seen()
    monkeypatch.setattr(screen, "lay_out", watching.lay_out)
    monkeypatch.setattr(screen, "fact_lines", watching.fact_lines)
    monkeypatch.setattr(screen, "screen_width", lambda: watching.width)
    return watching


@pytest.fixture
def large_ledger(ledger: FakeRecords) -> FakeRecords:
    """A ledger with long ids and large figures, partly estimated and partly unknown, and with failures."""
    record = task_record(task_id=TASK, tenant="nordwind-handelsgesellschaft")
    dear = tuple(
        replace(
            charge,
            task_id=TASK,
            tenant=record.tenant,
            consumed_quantity=None if charge.consumed_quantity is None else charge.consumed_quantity * HUGE,
            contracted_cost=None if charge.contracted_cost is None else charge.contracted_cost * HUGE,
            list_cost=None if charge.list_cost is None else charge.list_cost * HUGE,
        )
        for charge in record.charges
    )
    dollars = replace(record, charges=dear)
    euros = tuple(replace(charge, currency=charge.currency and "EUR") for charge in dear)
    other = task_record(task_id="acme:T-7", charges=euros)
    crashes = [crashed(3, f"globex:C-{number}") for number in range(12)]
    records = [dollars, other, *fleet(*crashes, failed(2, 3, "globex:B-1"), of=40)]
    ledger.records = {record.task_id: record for record in records}
    return ledger


@pytest.fixture
def desk_with_tasks(service: FakeTaskService) -> FakeTaskService:
    service.submit(make_ticket(TICKET, "nordwind-handelsgesellschaft"))
    service.wait_for_a_person(TASK, "98765432.10")
    service.submit(make_ticket("T-2"))
    service.put(
        "acme:T-2", status=TaskStatus.PARKED, waiting_for="classify: ModelRefused: status 401; put the key right"
    )
    return service


Command = Callable[[], Any]


@pytest.fixture
def commands(
    large_ledger: FakeRecords,
    desk_with_tasks: FakeTaskService,
    run: CommandLine,
    journal: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Command]:
    """Every command that prints a table."""
    bill = tmp_path / "bill.csv"
    bill.write_text(HEADER + line(0.5, 100) + line(0.7, 987_654_321))
    total = large_ledger.report().total
    kept = (TASK,) * 7
    monkeypatch.setattr(bootstrap, "rebuild_ledger", lambda *_: Rebuilt(70, kept, (), (), total, total))
    dapr = Told().turn(1).started(0).scheduled(1, 1, "classify_" + "x" * 40, "k" * 36).turn(2).failed(2, 1)
    monkeypatch.setattr(history, "_read_events", lambda _: list_events(dapr.events))
    prices = "config/prices.yaml"
    monkeypatch.setattr(provider, "_check", check_of)
    return {
        "cost report": lambda: ask("cost", "report"),
        "cost report, exact": lambda: ask("cost", "report", "--by", "task,step,model", "--exact"),
        "cost report, total": lambda: ask("cost", "report", "--by", ""),
        "cost report, prices": lambda: ask("cost", "report", "--prices", prices),
        "cost report, top": lambda: ask("cost", "report", "--by", "task", "--top", "5"),
        "cost report, counted": lambda: ask("cost", "report", "--by", "tenant,outcome"),
        "cost failures": lambda: ask("cost", "failures"),
        "cost reconcile": lambda: ask("cost", "reconcile", "--bill", str(bill)),
        "record": lambda: ask("record", TASK),
        "record, exact": lambda: ask("record", TASK, "--exact"),
        "ledger rebuild": lambda: ask("ledger", "rebuild"),
        "price show": lambda: ask("price", "show"),
        "price check": lambda: ask("price", "check"),
        "provider list": lambda: ask("provider", "list"),
        "provider show": lambda: ask("provider", "show", "anthropic"),
        "provider check": lambda: ask("provider", "check", "sandbox"),
        "provider check, several": lambda: ask("provider", "check", "sandbox", "echo"),
        "doctor": lambda: run("doctor", "--model-url", "http://127.0.0.1:1", "--systems-url", "http://127.0.0.1:1"),
        "doctor retries": lambda: ask("doctor", "retries"),
        "task list": lambda: run("task", "list"),
        "task history": lambda: ask("task", "history", TASK),
        "task show": lambda: run("task", "show", TASK),
        "token list": lambda: ask("token", "list"),
    }


async def check_of(_folder: Path, switch: Switch) -> ProviderCheckView:
    """A check with each verdict and long evidence."""
    results = tuple(
        ProbeView(question=f"takes {verdict.short}", verdict=verdict, evidence="it did not answer " * 9)
        for verdict in ProbeVerdict
    )
    return ProviderCheckView(
        provider=switch.template.name,
        component_type=switch.template.component_type,
        model=switch.model,
        results=results,
        requests=9,
        input_tokens=4_000,
        output_tokens=100,
    )


def test_every_table_is_whole_on_every_screen(seen: Seen, commands: dict[str, Command]) -> None:
    Path(os.environ["REFUND_AGENT_STATE_DIR"]).mkdir(exist_ok=True)
    for name, command in commands.items():
        for seen.width in (*WIDTHS, None):
            result = command()
            assert result.exception is None or isinstance(result.exception, SystemExit), (name, result.exc_info)
            assert result.stdout, (name, result.stderr)
    # Every command with a table was run, except the demo.
    assert seen.callers == calls_in_the_code() - {("demo.py", "_show")}


def test_the_demos_table_is_whole_on_every_screen(seen: Seen, run: CommandLine, service: FakeTaskService) -> None:
    service.settle = settle_correctly
    with RefundBookServer(book()) as books:
        for seen.width in (*WIDTHS, None):
            assert run("demo", "--systems-url", books.url).exit_code == 0
    assert seen.callers == {("demo.py", "_show")}


def calls_in_the_code() -> set[tuple[str, str]]:
    """File and function of every call that prints a table or facts."""
    calls = set()
    for file in CLI.glob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef) and file.name != "screen.py":
                names = {
                    node.func.id
                    for node in ast.walk(function)
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                }
                calls |= {(file.name, function.name)} if names & {"show_table", "show_facts"} else set()
    return calls


def test_wide_shows_a_terminal_what_a_pipe_is_shown(
    monkeypatch: pytest.MonkeyPatch, large_ledger: FakeRecords, desk_with_tasks: FakeTaskService
) -> None:
    piped = ask("cost", "report").stdout
    monkeypatch.setattr(screen, "_terminal_width", lambda: 60)
    narrow = ask("cost", "report").stdout
    assert narrow != piped
    assert ask("cost", "report", "--wide").stdout == piped
    assert ask("cost", "report").stdout == narrow  # it holds for that command alone
