"""`cost failures`: the same figures for people and programs, and a note on small numbers."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from decimal import Decimal

import pytest

from app.cli import failure_cost, opening
from app.finance.failures.failure_schemas import FailureCostView, IntervalView
from app.ledger.recording.saving import save
from app.ledger.store import database
from app.ledger.store.charge_rows import Prices
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED
from tests.cli.reading import ask, cells, json_answer, row
from tests.finance.failures.tasks import TOKENS, call, crashed, failed, failure, fleet, task
from tests.ledgers import FakeRecords

KEYS = "key tasks failures causes clean wasted durable crashes every_failure"
RUNNER = "failed_tasks failure_rate restarts progress unknown_progress replay journal under_way repeated enough note"


def put(ledger: FakeRecords, *records: TaskRecord) -> None:
    ledger.records = {record.task_id: record for record in records}


@pytest.fixture
def forty_tasks(ledger: FakeRecords) -> None:
    """Forty tasks: ten that crashed in the draft, two whose answer was in the journal, one whose lookups failed."""
    crashes = [crashed(3, f"acme:C-{number}") for number in range(10)]
    answered = [crashed(3, f"acme:A-{number}", answered=True) for number in range(2)]
    put(ledger, *fleet(*crashes, *answered, failed(2, 3, "acme:B-1"), of=40))


@pytest.mark.usefixtures("forty_tasks")
def test_the_table_is_the_bound_then_the_measured() -> None:
    lines = ask("cost", "failures").stdout.splitlines()
    assert [lines[0], lines[2]] == [
        "40 tasks ended; 13 of them failed, 15 times in all",
        "shares are of the clean model spend, with their 95 % intervals",
    ]
    assert lines.pop(1) == (
        "0.0300 USD of model spend was wasted (18.8 %); a restart from zero would have cost 0.0490 USD (30.6 %)"
    )
    columns = "restarts-after failure-rate at-most by-progress restart-from-zero durable-resume ratio currency"
    assert cells(lines[3]) == [column.replace("-", " ") for column in columns.split()]
    crash, failure_ = cells(lines[4]), cells(lines[5])
    # Clean: 40 x 0.004. Wasted: 10 x 0.003. Repeated: 12 x 0.001, 2 x 0.003; and 0.001 before the lookups.
    assert [crash[0], crash[1].split(" (")[0], *crash[2:4]] == ["a crash", "30.0 %", "30.0 %", "11.2 %"]
    assert [cell.split(" (")[0] for cell in crash[4:]] == ["30.0 %", "18.8 %", "0.62", "USD"]
    assert [cell.split(" (")[0] for cell in failure_] == [
        *("any failure", "32.5 %", "32.5 %", "11.9 %"),
        *("30.6 %", "18.8 %", "0.61", "USD"),
    ]
    assert all("(" in crash[place] and crash[place].endswith(")") for place in (1, 4, 5))


@pytest.mark.usefixtures("forty_tasks")
def test_repeated_and_prevented_work_sum_to_a_restart() -> None:
    shown = ask("cost", "failures").stdout
    columns = "model-spend crashes tokens every-failure tokens compute orchestration currency"
    assert cells(next(line for line in shown.splitlines() if line.startswith("model spend"))) == [
        column.replace("-", " ") for column in columns.split()
    ]
    assert row(shown, "repeated: wasted") == [
        *("repeated: wasted", "0.0300", "~30,000", "0.0300", "~30,000", "USD"),
    ]
    assert row(shown, "prevented: replay")[1:] == [
        *("0.0120", "12,000", "0.0130", "13,000", "0.0005", "0.0001", "USD"),
    ]
    assert row(shown, "prevented: journal")[1:] == ["0.0060", "6,000", "0.0060", "6,000", "USD"]
    assert row(shown, "restart from zero")[1:] == ["0.0480", "0.0490", "USD"]
    assert "under way" not in shown  # there was none


@pytest.mark.usefixtures("forty_tasks")
def test_stages_causes_and_notes_follow() -> None:
    shown = ask("cost", "failures").stdout
    draft = row(shown, "draft_refund ")
    assert [draft[0], draft[1], draft[2], draft[4]] == ["draft_refund", "40", "12", "38 % (25-25)"]
    assert draft[5:] == ["30.0 %", "18.8 %", "0.62", "USD"]
    assert row(shown, "retrieve_account ")[2] == "1*"
    assert row(shown, "interrupted ") == ["interrupted", "worker gone", "12", "12"]
    assert row(shown, "failed ") == ["failed", "tool error", "3", "1"]
    assert "note: * few tasks failed there" in shown
    assert "note: progress: mean (and quartiles)" in shown
    assert "note: of what was wasted, ~ and estimated" in shown
    assert "acme" not in shown  # of one tenant, there is nothing to tell apart
    for line in shown.splitlines():
        assert len(line.rstrip()) <= 120 or line.startswith("note: ")


@pytest.mark.usefixtures("forty_tasks")
def test_several_tenants_have_separate_rows(ledger: FakeRecords) -> None:
    put(ledger, *ledger.records.values(), crashed(3, "globex:T-1"), task("globex:T-2"))
    shown = ask("cost", "failures").stdout
    assert row(shown, "acme ")[:3] == ["acme", "40", "13"]
    assert row(shown, "globex ")[:3] == ["globex", "2", "1*"]
    alone = ask("cost", "failures", "--tenant", "globex").stdout
    assert alone.startswith("2 tasks ended; 1 of them failed, 1 times in all\n")
    assert "note: 1 of 2 tasks failed: too few for rates (5) and for shares of spend (10); look at" in alone


def test_currencies_have_separate_rows(ledger: FakeRecords) -> None:
    euros = tuple(call(number, model="model-e", task_id="acme:E-1") for number in TOKENS)
    put(ledger, crashed(3), task("acme:E-1", calls=euros, failures=(failure(2, 3, 4),)))
    lines = ask("cost", "failures").stdout.splitlines()
    lines = lines[lines.index(next(line for line in lines if line.startswith("shares are"))) - 1 :]
    assert cells(lines[4])[-1] == "EUR"
    assert [cells(lines[4])[-3].split(" (")[0], cells(lines[5])[-3].split(" (")[0]] == ["0.0 %", "75.0 %"]
    assert cells(lines[5])[-1] == "USD"
    replay = next(number for number, line in enumerate(lines) if line.startswith("prevented: replay"))
    assert cells(lines[replay])[-1] == "EUR"
    assert cells(lines[replay + 1])[-1] == "USD"
    named = [line for line in lines if line.startswith(("restart from zero", "a crash", "any failure", "acme"))]
    assert len(named) == 3  # once each, however many currencies


def test_small_shares_have_more_digits(ledger: FakeRecords) -> None:
    put(ledger, *fleet(crashed(3), of=200))
    assert row(ask("cost", "failures").stdout, "a crash ")[1:3] == ["0.50 % (0.09-2.78)", "0.50 %"]


def test_a_share_of_next_to_nothing_keeps_its_interval() -> None:
    one_of_20_000 = IntervalView(value=Decimal("0.00005"), low=Decimal("0.000009"), high=Decimal("0.00028"))
    assert failure_cost._interval(one_of_20_000) == "<0.01 % (<0.01-0.03)"


def test_few_crashes_among_many_failures_are_noted(ledger: FakeRecords) -> None:
    many = (failed(2, 1, f"acme:B-{number}") for number in range(20))
    put(ledger, *fleet(crashed(3), *many, of=40))
    assert "note: 1 of 40 tasks crashed: too few for rates" in ask("cost", "failures").stdout


def test_unknown_costs_are_noted(ledger: FakeRecords) -> None:
    unknown = call(3, usage=NOT_REPORTED)
    put(ledger, task(calls=(call(1), unknown), failures=(failure(3, 3, 4),)))
    shown = ask("cost", "failures").stdout
    assert "note: 1 restarts have no progress" in shown
    assert "note: of the clean spend, 2 charges have no quantity" in shown


def test_no_ended_task_is_no_error(ledger: FakeRecords) -> None:
    put(ledger, replace(crashed(3), ended_at=None))
    result = ask("cost", "failures")
    assert (result.exit_code, result.stdout) == (0, "note: no task ended in this time\n")
    assert ask("cost", "failures", "--since", "2027-01-01").stdout == "note: no task ended in this time\n"
    view = json_answer("cost", "failures")
    assert (view["enough"], view["note"]) == (False, "no task ended in this time")
    assert view["total"]["crashes"]["failure_rate"] is None


def test_the_day_of_until_is_not_included(ledger: FakeRecords) -> None:
    put(ledger, crashed(3))
    assert json_answer("cost", "failures", "--since", "2026-11-22", "--until", "2026-11-23")["total"]["tasks"] == 1
    assert json_answer("cost", "failures", "--until", "2026-11-22")["total"]["tasks"] == 0
    wrong = ask("cost", "failures", "--since", "2026-11-22", "--until", "2026-11-22")
    assert wrong.exit_code == 2
    assert "--until 2026-11-22 is not after" in " ".join(wrong.stderr.split())


@pytest.mark.usefixtures("forty_tasks")
def test_the_json_keeps_its_keys_and_all_digits() -> None:
    view = json_answer("cost", "failures", "--tenant", "acme")
    assert " ".join(view) == "since until tenants total by_tenant by_stage by_tenant_and_stage enough note"
    assert (view["tenants"], view["enough"], view["note"]) == (["acme"], True, "")
    whole = view["total"]
    assert " ".join(whole) == KEYS
    assert " ".join(whole["crashes"]) == " ".join(whole["every_failure"]) == RUNNER
    every = whole["every_failure"]
    assert " ".join(every["failure_rate"]) == "value low high"
    assert " ".join(every["progress"]) == "count mean lower median upper"
    assert " ".join(every["repeated"][0]) == "currency contracted_cost share at_most by_progress durable_ratio"
    assert every["repeated"][0]["contracted_cost"] == "0.049"
    assert every["repeated"][0]["at_most"] == "0.052"  # 0.325 x 0.16
    assert every["repeated"][0]["durable_ratio"] == "0.612245"
    assert " ".join(whole["durable"][0]) == "currency contracted_cost share"
    assert " ".join(whole["causes"][0]) == "kind cause failures tasks"
    # Wasted charges are shown by their kind.
    assert whole["wasted"]["money"][0]["by_kind"] == {"model": "0.03"}
    assert [part["key"] for part in view["by_tenant"]] == [{"tenant": "acme"}]
    assert view["by_tenant_and_stage"][-1]["key"] == {"tenant": "acme", "stage": "retrieve_account"}
    assert sum(
        Decimal(part["every_failure"]["repeated"][0]["contracted_cost"]) for part in view["by_stage"]
    ) == Decimal("0.049")
    assert FailureCostView.model_validate(view)


@pytest.mark.parametrize(
    ("crashes", "said"),
    [
        (4, "4 of 40 tasks failed: too few for rates (5) and for shares of spend (10); look at the intervals"),
        (5, "5 of 40 tasks failed: enough for a rate, too few for shares of spend (10); look at the intervals"),
        (9, "9 of 40 tasks failed: enough for a rate, too few for shares of spend (10); look at the intervals"),
        (10, ""),
    ],
)
def test_few_failures_are_noted_and_have_intervals(ledger: FakeRecords, crashes: int, said: str) -> None:
    put(ledger, *fleet(*(crashed(3, f"acme:C-{number}") for number in range(crashes)), of=40))
    view = json_answer("cost", "failures")
    assert (view["note"], view["enough"]) == (said, not said)
    assert view["total"]["crashes"]["note"] == said.replace("failed", "crashed")
    share = view["total"]["crashes"]["repeated"][0]["share"]
    assert Decimal(share["low"]) < Decimal(share["value"]) < Decimal(share["high"])
    assert (f"note: {said}\n" in ask("cost", "failures").stdout) == bool(said)


@pytest.mark.usefixtures("forty_tasks")
def test_the_ledgers_own_figures_are_those_of_its_records(
    ledger: FakeRecords, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    engine = database.connect(url)
    records = list(ledger.records.values())
    numbers = Prices(engine).numbers(charge for record in records for charge in record.charges)
    with engine.begin() as connection:
        save(connection, records, numbers)
    engine.dispose()
    expected = json_answer("cost", "failures")
    monkeypatch.undo()
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", url)
    assert json_answer("cost", "failures") == expected
    assert opening.open_records().failures().ended == {"acme": 40}


@pytest.mark.usefixtures("forty_tasks")
def test_a_spreadsheet_gets_the_same_figures() -> None:
    rows = list(csv.DictReader(io.StringIO(ask("cost", "failures", "--csv").stdout)))
    whole = json_answer("cost", "failures")["total"]["every_failure"]
    assert (rows[0]["tenant"], rows[0]["stage"], rows[0]["tasks"], rows[0]["failed_tasks"]) == ("", "", "40", "13")
    assert rows[0]["failure_rate"] == whole["failure_rate"]["value"]
    assert (rows[0]["from_zero_cost"], rows[0]["currency"]) == (whole["repeated"][0]["contracted_cost"], "USD")
    assert {row["stage"] for row in rows if not row["tenant"]} >= {"", "classify", "draft_refund"}
    assert len({tuple(row) for row in rows}) == 1
