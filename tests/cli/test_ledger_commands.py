"""`ledger check` and `ledger rebuild`: the output for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from app import bootstrap
from app.config.settings import Settings
from app.dapr.daprd import Daprd
from app.finance.rollup import rollup
from app.ledger.audit import refunds
from app.ledger.audit.ledger_check import CheckedView, LedgerDifference, RebuiltView
from app.ledger.audit.rebuilding import Rebuilt
from app.ledger.audit.refunds import RefundsChecked
from tests.cli.reading import ask, json_answer, row
from tests.records import calls, task_record, unreported_call

GONE = LedgerDifference("acme:T-1", "charge classify input", "1 of it", "0")
LOST = LedgerDifference(
    "acme:T-2", "refund RF-2", "none", "20.00 EUR for order O-2 of ticket T-2", "books", "post it again"
)
AGREED = RefundsChecked((), in_books=1_235, in_ledger=1_234, in_flight=1)
TOTAL = rollup(task_record(calls=(*calls(), unreported_call())).charges).total


@pytest.fixture(autouse=True)
def some_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", "sqlite://")
    monkeypatch.setenv("DAPR_API_TOKEN", "opens")


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the result of the check: the differences, and the comparison of the refunds."""

    def set_result(*differences: LedgerDifference, checked: RefundsChecked = AGREED) -> None:
        def compare(database_url: str, daprd: Daprd) -> RefundsChecked:
            assert (database_url, daprd.http, daprd.token) == ("sqlite://", "http://127.0.0.1:1", "opens")
            return checked

        monkeypatch.setattr(bootstrap, "check_ledger", lambda _: differences)
        monkeypatch.setattr(refunds, "check", compare)

    return set_result


@pytest.fixture
def rebuild(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rebuilt], None]:
    """Sets the result of a rebuild that reports its progress twice."""

    def set_result(rebuilt: Rebuilt) -> None:
        def run(settings: Settings, progress: Callable[[int, int], None]) -> Rebuilt:
            assert settings.ledger_url
            progress(50, 70)
            progress(70, 70)
            return rebuilt

        monkeypatch.setattr(bootstrap, "rebuild_ledger", run)

    return set_result


def test_a_ledger_that_agrees_with_its_sources(find: Callable[..., None]) -> None:
    find()
    result = ask("ledger", "check")
    assert (result.exit_code, result.stdout) == (
        0,
        "refunds: 1,234 in the ledger, 1,235 in the books, 1 of them of tasks that have not ended\nno difference\n",
    )
    counted = {"in_books": 1_235, "in_ledger": 1_234, "in_flight": 1, "problem": ""}
    assert json_answer("ledger", "check") == {"differences": [], "refunds": counted}


def test_each_difference_is_a_sentence_and_exit_code_1(find: Callable[..., None]) -> None:
    find(GONE, LedgerDifference("", "daily sum 2026-11-22 acme", "5 charges of 7", "4 charges of 7"))
    result = ask("ledger", "check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "task acme:T-1: charge classify input: the sources say 1 of it, the ledger 0",
        "daily sum 2026-11-22 acme: the sources say 5 charges of 7, the ledger 4 charges of 7",
    ]
    assert lines[3].startswith("2 differences; `refund-agent ledger rebuild`")


def test_a_rebuild_is_not_recommended_where_it_does_not_help(find: Callable[..., None]) -> None:
    find(checked=replace(AGREED, differences=(LOST,), in_flight=0))
    result = ask("ledger", "check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "task acme:T-2: refund RF-2: the books say none, the ledger 20.00 EUR for order O-2 of ticket T-2; "
        "post it again",
        "refunds: 1,234 in the ledger, 1,235 in the books",
        "1 difference",
    ]


def test_unreadable_books_fail_the_check(find: Callable[..., None]) -> None:
    find(GONE, checked=RefundsChecked((LOST,), 0, 7, 0, problem="refunds/list: status 503; try again"))
    result = ask("ledger", "check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == ["task acme:T-1", "task acme:T-2"]
    assert lines[2] == "the refunds could not be compared with all of the books: refunds/list: status 503; try again"
    assert lines[3].startswith("2 differences; `refund-agent ledger rebuild`")
    find(checked=RefundsChecked((), 0, 7, 0, problem="refunds/list: status 503"))
    result = ask("ledger", "check", "--json")
    assert (result.exit_code, json.loads(result.stdout)["refunds"]["problem"]) == (1, "refunds/list: status 503")


def test_differences_for_programs(find: Callable[..., None]) -> None:
    find(GONE, checked=replace(AGREED, differences=(LOST,)))
    result = ask("ledger", "check", "--json")
    assert result.exit_code == 1
    gone = {"task_id": "acme:T-1", "what": "charge classify input", "expected": "1 of it", "found": "0"}
    differences = json.loads(result.stdout)["differences"]
    assert differences[0] == gone | {"source": "sources", "remedy": ""}
    second = differences[1]
    assert (second["task_id"], second["source"], second["remedy"]) == (
        "acme:T-2",
        "books",
        "post it again",
    )
    assert CheckedView.model_validate_json(result.stdout)


def test_a_rebuild_shows_the_sums_before_and_after(rebuild: Callable[[Rebuilt], None]) -> None:
    rebuild(Rebuilt(70, (), (), (), TOTAL, TOTAL))
    result = ask("ledger", "rebuild")
    assert result.exit_code == 0
    sums = ["~4,200 + ?", "~1,240 + ?", "~0.003700975 USD + ?", "59 % estimated, 2 unreported"]
    assert row(result.stdout, "before")[2:] == row(result.stdout, "after")[2:] == sums
    assert result.stdout.endswith("70 tasks rebuilt, the same to the last digit\n")
    assert "tasks: 70 of 70" in result.stderr


def test_changed_sums_are_reported(rebuild: Callable[[Rebuilt], None]) -> None:
    cent = replace(TOTAL.money[0], contracted_cost=TOTAL.money[0].contracted_cost + Decimal("0.0000000001"))
    rebuild(Rebuilt(70, (), (), (), TOTAL, replace(TOTAL, money=(cent,))))
    assert "70 tasks rebuilt, with other sums\n" in ask("ledger", "rebuild").stdout


def test_tasks_that_are_not_rebuilt_as_they_were_are_named(rebuild: Callable[[Rebuilt], None]) -> None:
    kept = tuple(f"acme:T-{number}" for number in range(7))
    rebuild(Rebuilt(70, kept, ("acme:T-9",), ("acme:T-8",), TOTAL, TOTAL))
    shown = ask("ledger", "rebuild").stdout
    assert "note: 7 tasks (acme:T-0, acme:T-1, acme:T-2, acme:T-3, acme:T-4, ...) were not changed, since" in shown
    assert "note: 1 tasks (acme:T-9) were priced by today's book" in shown
    assert "note: 1 tasks (acme:T-8) were restored from histories, which hold no texts" in shown
    view = json_answer("ledger", "rebuild")
    assert list(view) == ["tasks", "kept", "repriced", "restored", "before", "after"]
    assert (view["kept"], view["repriced"]) == (list(kept), ["acme:T-9"])
    assert view["before"]["money"][0]["contracted_cost"] == "0.003700975"
    assert RebuiltView.model_validate(view)
