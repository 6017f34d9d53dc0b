"""`cost report`: dimensions, separate currencies, unknown values, and repricing."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import insert

from app.cli import opening
from app.dapr.history.model import AttemptOutcome
from app.domain.formatting import digits_for
from app.domain.models import UsageBasis
from app.finance.price_schemas import RepricingView
from app.finance.reconciliation.by_request import UnattributedRetries
from app.finance.report_schemas import CountedReportView
from app.finance.rollup import Dimension
from app.ledger.recording.saving import save
from app.ledger.store import database
from app.ledger.store.charge_rows import Prices
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import TokenUsage
from app.pricing.formula import charge_call
from tests.cli.reading import ask, cells, json_answer, row
from tests.cli.test_reconcile import journal_row
from tests.ledgers import FakeRecords
from tests.pricing.makers import agreement, price_book
from tests.pricing.makers import origin as some_origin
from tests.records import (
    at,
    attempt_record,
    call_record,
    calls,
    interrupted_call,
    step_record,
    steps,
    task_record,
    unreported_call,
)

BOOK = price_book(agreement(), agreement(id="euro", model="model-e", currency="EUR"))
EXACT = Decimal("0.003700975")  # what `task_record()` costs, as far as that is known
PRICES = Path("config/prices.yaml")


def put(ledger: FakeRecords, *records: TaskRecord) -> None:
    ledger.records = {record.task_id: record for record in records}


def with_currencies() -> TaskRecord:
    """1,000 input tokens at 2 USD a million, and the same at 2 EUR a million."""
    usage, where = TokenUsage(input_tokens=1000, output_tokens=0, cached_tokens=0), some_origin(at=at(1))
    charges = [*charge_call(BOOK, usage, where), *charge_call(BOOK, usage, replace(where, model="model-e"))]
    return task_record(charges=tuple(charges))


def test_stages_by_tenant_and_a_total(ledger: FakeRecords) -> None:
    lines = ask("cost", "report").stdout.splitlines()
    columns = "tenant stage tokens-in cached tokens-out model compute orchestration wasted total currency known"
    assert cells(lines[0]) == [column.replace("-", " ") for column in columns.split()]
    assert [cells(line)[:2] for line in lines[1:7]] == [
        ["acme", "(workflow)"],
        ["acme", "classify"],
        ["acme", "close_case"],
        ["acme", "draft_refund"],
        ["acme", "notify_customer"],
        ["acme", "retrieve_account"],
    ]
    figures = ["900", "100", "80", "0.000458", "0.000007", "0.000001", "0.000466", "USD", "reported"]
    assert cells(lines[2])[2:] == figures


def test_the_total_shows_how_it_is_known(ledger: FakeRecords) -> None:
    put(ledger, task_record(calls=(*calls(), unreported_call())))
    shown = ask("cost", "report", "--by", "").stdout
    total = ["total", "~4,200 + ?", "300", "~1,240 + ?", "0.001374", "0.000110", "0.000017", "0.002200"]
    assert row(shown, "total ") == [*total, "0.003701 + ?", "USD", "59 % estimated, 2 unreported"]
    assert "note: 2 charges have no quantity" in shown
    assert "`refund-agent cost reconcile`" in shown


def test_a_model_without_a_price_is_reported(ledger: FakeRecords) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(model="new-model"),)))
    shown = ask("cost", "report", "--by", "model").stdout
    assert row(shown, "new-model") == ["new-model", "900", "100", "80", "?", "3 unpriced"]
    assert row(shown, "total ")[-3:] == ["0.000017 + ?", "USD", "3 unpriced"]
    assert "note: 3 charges have no price and are in no sum; `refund-agent price check` says what to add\n" in shown


def test_currencies_have_separate_rows_and_are_never_added(ledger: FakeRecords) -> None:
    put(ledger, with_currencies())
    shown = ask("cost", "report", "--by", "tenant").stdout
    assert [cells(line) for line in shown.splitlines()[1:5]] == [
        ["acme", "2,000", "0", "0", "0.002", "0.002", "EUR", "reported", "1", "0.002"],
        ["acme", "0.002", "0.002", "USD", "reported", "0.002"],
        ["total", "2,000", "0", "0", "0.002", "0.002", "EUR", "reported", "1", "0.002"],
        ["total", "0.002", "0.002", "USD", "reported", "0.002"],
    ]
    assert "0.004" not in shown


@pytest.mark.parametrize(
    ("estimated", "said"),
    [(1, "<1 % estimated"), (120, "12 % estimated"), (999, ">99 % estimated"), (1000, "estimated"), (0, "reported")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(ledger: FakeRecords, estimated: int, said: str) -> None:
    usages = [
        TokenUsage(input_tokens=1000 - estimated, output_tokens=0, cached_tokens=0),
        TokenUsage(input_tokens=estimated, output_tokens=0, cached_tokens=0, basis=UsageBasis.ESTIMATED),
    ]
    charges = [charge_call(BOOK, usage, some_origin(number=number)) for number, usage in enumerate(usages)]
    put(ledger, task_record(charges=tuple(charge for call in charges for charge in call)))
    assert row(ask("cost", "report", "--by", "").stdout, "total ")[-1] == said


@pytest.mark.parametrize("dimension", [name for name in Dimension if name is not Dimension.PRICE_BOOK])
def test_every_dimension_can_be_asked_for_and_loses_nothing(ledger: FakeRecords, dimension: Dimension) -> None:
    put(ledger, task_record(calls=(*calls(), unreported_call())))
    view = json_answer("cost", "report", "--by", dimension.value)
    assert view["by"] == [dimension.value]
    keys = [group["key"][dimension.value] for group in view["groups"]]
    assert len(set(keys)) == len(keys) > 0
    assert sum(Decimal(money["contracted_cost"]) for group in view["groups"] for money in group["money"]) == EXACT
    assert sum(group["unreported"] for group in view["groups"]) == view["total"]["unreported"] == 2


def test_a_price_book_is_named_by_the_beginning_of_its_digest(ledger: FakeRecords) -> None:
    digest = ledger.records["acme:T-1"].charges[0].book_digest
    assert row(ask("cost", "report", "--by", "price-book").stdout, digest[:12])[0] == digest[:12]
    assert json_answer("cost", "report", "--by", "price-book")["groups"][0]["key"] == {"price-book": digest}


def test_the_json_keeps_its_keys_and_all_digits(ledger: FakeRecords) -> None:
    view = json_answer("cost", "report", "--by", "tenant,kind", "--tenant", "acme")
    assert list(view)[:7] == ["since", "until", "tenants", "by", "groups", "total", "left_out"]
    assert (view["by"], view["tenants"], view["since"]) == (["tenant", "kind"], ["acme"], None)
    assert " ".join(view["total"]) == "key charges money quantities cost_basis unreported unpriced tasks work"
    money = view["total"]["money"][0]
    assert " ".join(money) == "currency contracted_cost list_cost by_basis by_kind"
    assert money["contracted_cost"] == "0.003700975"
    assert money["by_kind"]["wasted"] == money["by_basis"]["estimated"] == "0.0022"
    assert " ".join(view["total"]["quantities"][0]) == "meter unit consumed_quantity by_basis missing"
    assert [group["key"]["kind"] for group in view["groups"]] == ["compute", "model", "orchestration", "wasted"]
    assert CountedReportView.model_validate(view)


def test_days_and_tenant_choose_the_charges(ledger: FakeRecords) -> None:
    other = task_record(task_id="globex:T-2", tenant="globex")
    put(ledger, *ledger.records.values(), other)
    everything = json_answer("cost", "report", "--by", "tenant")
    assert [group["key"]["tenant"] for group in everything["groups"]] == ["acme", "globex"]
    chosen = json_answer("cost", "report", "--by", "tenant", "--tenant", "globex", "--since", "2026-11-22")
    assert [group["key"]["tenant"] for group in chosen["groups"]] == ["globex"]
    until = json_answer("cost", "report", "--until", "2026-11-22")  # that day is not among them
    assert (until["groups"], until["total"]["charges"], until["until"]) == ([], 0, "2026-11-22")


def test_an_empty_report_is_no_error(ledger: FakeRecords) -> None:
    result = ask("cost", "report", "--since", "2027-01-01", "--until", "2027-02-01")
    assert result.exit_code == 0
    assert result.stdout.endswith("nothing was charged since 2027-01-01 before 2027-02-01\n")
    put(ledger)
    assert ask("cost", "report").stdout.endswith("nothing was charged yet\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--by", "tenant,colour"), "'colour'; use any of tenant, agent, workflow"),
        (("--since", "2026-11-22", "--until", "2026-11-22"), "--until 2026-11-22 is not after"),
        (("--since", "tomorrow"), "'tomorrow' is not a day"),
        (("--top", "3", "--prices", "config/prices.yaml"), "--sort and --top cannot be combined with --prices"),
        (("--top", "0"), "must be 1 or more"),
        (("--csv", "--json"), "--csv and --json cannot be combined"),
    ],
)
def test_wrong_usage_is_exit_code_2(ledger: FakeRecords, words: tuple[str, ...], named: str) -> None:
    result = ask("cost", "report", *words)
    assert result.exit_code == 2
    assert named in " ".join(result.stderr.split())


# The most expensive tasks, and why.


def ten_tasks(ledger: FakeRecords) -> None:
    """T-0 has one call, T-9 ten and two wasted ones."""
    records = []
    for number in range(10):
        calls = [call_record("e-1", 0.2, turn=turn + 1, task_id=f"acme:T-{number}") for turn in range(number + 1)]
        records.append(task_record(task_id=f"acme:T-{number}", steps=steps()[:1], calls=tuple(calls)))
    wasted = [interrupted_call("e-1", 0.1, turn=turn, number=2, task_id="acme:T-9") for turn in (1, 2)]
    put(ledger, *records[:-1], replace(records[-1], calls=(*records[-1].calls, *wasted)))


def test_the_most_expensive_tasks_are_shown_with_the_reason(ledger: FakeRecords) -> None:
    ten_tasks(ledger)
    shown = ask("cost", "report", "--by", "task", "--top", "3").stdout
    tasks = [cells(line) for line in shown.splitlines()[1:4]]
    assert [task[0] for task in tasks] == ["acme:T-9", "acme:T-8", "acme:T-7"]
    assert [task[-1] for task in tasks] == ["12 calls, 2 wasted", "9 calls", "8 calls"]
    assert "3 of 10 groups; the total is of all of them\n" in shown
    assert "10 tasks, " in shown
    view = json_answer("cost", "report", "--by", "task", "--top", "3")
    assert [group["key"]["task"] for group in view["groups"]] == ["acme:T-9", "acme:T-8", "acme:T-7"]
    assert view["groups"][0]["work"] == {
        "calls": 12,
        "wasted_calls": 2,
        "step_retries": 0,
    }
    assert (view["left_out"], view["total"]["tasks"]) == (7, 10)


def test_groups_are_ordered_by_name_total_or_tokens(ledger: FakeRecords) -> None:
    ten_tasks(ledger)

    def order(*words: str) -> list[str]:
        return [group["key"]["task"][-1] for group in json_answer("cost", "report", "--by", "task", *words)["groups"]]

    assert order() == order("--sort", "name") == list("0123456789")
    assert order("--sort", "total") == order("--sort", "tokens") == list("9876543210")
    assert order("--sort", "name", "--top", "2") == ["0", "1"]


def test_each_currency_has_its_most_expensive_task(ledger: FakeRecords) -> None:
    put(ledger, with_currencies(), task_record(task_id="acme:T-2"), task_record(task_id="acme:T-3", charges=()))
    view = json_answer("cost", "report", "--by", "task", "--top", "1")
    assert [group["key"]["task"] for group in view["groups"]] == ["acme:T-1", "acme:T-2"]


def test_the_cost_per_task_is_shown_where_tasks_can_be_counted(ledger: FakeRecords) -> None:
    ten_tasks(ledger)
    shown = ask("cost", "report", "--by", "tenant").stdout
    whole = sum(Decimal(sum_["contracted_cost"]) for sum_ in json_answer("cost", "report")["total"]["money"])
    assert row(shown, "acme ")[-2:] == row(shown, "total ")[-2:] == ["10", f"{whole / 10:.6f}"]
    assert "per task" not in ask("cost", "report", "--by", "stage").stdout
    assert f"10 tasks, {whole / 10:.6f} USD each\n" in ask("cost", "report", "--by", "stage").stdout


def test_a_spreadsheet_gets_every_digit_and_no_sums(ledger: FakeRecords) -> None:
    put(ledger, with_currencies(), task_record(task_id="acme:T-2"))
    result = ask("cost", "report", "--by", "tenant,model", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["tenant"] for row in rows} == {"acme"}
    view = json_answer("cost", "report", "--by", "tenant,model")
    for sum_ in view["total"]["money"]:
        cost = sum(Decimal(row["contracted_cost"]) for row in rows if row["currency"] == sum_["currency"])
        assert cost == Decimal(sum_["contracted_cost"])
    tokens = sum(Decimal(sum_["consumed_quantity"]) for sum_ in view["total"]["quantities"] if sum_["meter"] == "input")
    assert sum(Decimal(row["input"] or 0) for row in rows) == tokens
    assert sum(int(row["unreported"] or 0) for row in rows) == view["total"]["unreported"]


def test_a_spreadsheet_takes_no_text_for_a_formula(ledger: FakeRecords) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(model="=HYPERLINK(1)"),)))
    assert "\n'=HYPERLINK(1)," in ask("cost", "report", "--by", "model", "--csv").stdout


# With another price book.


def other_prices(tmp_path: Path, old: str, new: str) -> str:
    """Writes the project's price file with one text replaced."""
    text = PRICES.read_text()
    assert text.count(old) == 1
    path = tmp_path / "other.yaml"
    path.write_text(text.replace(old, new))
    return str(path)


def test_the_same_usage_by_other_prices(ledger: FakeRecords, tmp_path: Path) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(),)))
    other_file = other_prices(
        tmp_path,
        '{input: "0.40", cached_input: "0.10", output: "1.60"}',
        '{input: "0.80", cached_input: "0.10", output: "1.60"}',
    )
    shown = ask("cost", "report", "--prices", other_file).stdout
    known = ["USD", "reported"]
    model = ["model", "conversation.openai", "sandbox-small", "0.000458", "0.000778", "0.000320", *known]
    assert row(shown, "model ") == model
    assert row(shown, "compute ") == ["compute", "-", "-", "0.000007", "0.000007", "0.000000", *known]
    assert row(shown, "total ") == ["total", "0.000475", "0.000795", "0.000320", *known]
    view = json_answer("cost", "report", "--prices", other_file)
    assert list(view) == ["since", "until", "tenants", "billed_books", "book", "billed", "repriced", "changes"]
    assert [change["key"]["kind"] for change in view["changes"]] == [change["kind"] for change in view["changes"]]
    assert view["billed_books"] == [ledger.records["acme:T-1"].charges[0].book_digest] != [view["book"]]
    assert f"billed by book {view['billed_books'][0][:12]}, repriced by book {view['book'][:12]}\n" in shown
    change = next(row for row in view["changes"] if row["kind"] == "model")
    assert (change["billed"], change["repriced"], change["change"]) == ("0.000458", "0.000778", "0.00032")
    assert RepricingView.model_validate(view)


def test_other_prices_by_any_dimension(ledger: FakeRecords, tmp_path: Path) -> None:
    other = task_record(task_id="globex:T-2", tenant="globex", steps=steps()[:1], calls=(call_record(),))
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(),)), other)
    other_file = other_prices(
        tmp_path,
        '{input: "0.40", cached_input: "0.10", output: "1.60"}',
        '{input: "0.80", cached_input: "0.10", output: "1.60"}',
    )
    words = ("cost", "report", "--prices", other_file, "--by", "tenant")
    shown = ask(*words).stdout
    assert row(shown, "globex ")[:4] == ["globex", "0.000475", "0.000795", "0.000320"]
    assert row(shown, "total ")[3] == "0.000640"
    assert json_answer(*words)["changes"][0]["key"] == {"tenant": "acme"}
    rows = list(csv.DictReader(io.StringIO(ask(*words, "--csv").stdout)))
    assert [(row["tenant"], row["change"]) for row in rows] == [("acme", "0.00032"), ("globex", "0.00032")]
    assert ask("cost", "report", "--prices", other_file, "--by", "").stdout.count("0.000640") == 1


def test_a_price_that_the_other_book_lacks_is_no_saving(ledger: FakeRecords, tmp_path: Path) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(),)))
    other = other_prices(tmp_path, "model: sandbox-*", "model: others-*")
    shown = ask("cost", "report", "--prices", other).stdout
    assert row(shown, "model ")[3:] == ["0.000458", "?", "?", "USD", "reported, then unpriced"]
    assert row(shown, "total ")[1:4] == ["0.000475", "0.000017 + ?", "-0.000458 + ?"]
    assert f"note: {other} has no price for 3 charges, which are in no repriced sum; `refund-agent price check" in shown


def test_a_wrong_price_file_is_reported_in_one_line(ledger: FakeRecords, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("agreements: 3\n")
    result = ask("cost", "report", "--prices", str(tmp_path / "wrong.yaml"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "wrong.yaml" in result.stderr


# With a real ledger.


def test_the_ledgers_own_sums_are_those_of_its_charges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    records = (task_record(), task_record(task_id="globex:T-2", tenant="globex", outcome=None, refund=None))
    engine = database.connect(url)
    numbers = Prices(engine).numbers(charge for record in records for charge in record.charges)
    with engine.begin() as connection:
        save(connection, records, numbers)
    engine.dispose()
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", url)
    asked = [
        ("cost", "report", *words)
        for words in (
            ("--by", "tenant,stage,model,outcome,kind"),
            ("--by", "tenant,outcome"),
            ("--by", "agent,workflow", "--since", "2026-11-22", "--until", "2026-11-23"),
            ("--by", "tenant", "--since", "2026-11-23"),
            ("--by", "", "--tenant", "globex"),
        )
    ]
    views = [json_answer(*words) for words in asked]
    monkeypatch.setattr(opening, "open_records", lambda: FakeRecords(*records))
    assert views == [json_answer(*words) for words in asked]
    assert [group["tasks"] for group in views[1]["groups"]] == [1, 1]
    assert [view["total"]["tasks"] for view in views] == [2, 2, 2, 0, 1]


@pytest.mark.parametrize(
    ("amounts", "shown"),
    [
        (("1234567.891", "0.004", "0", "-0.001"), ("1,234,567.89", "<0.01", "0.00", ">-0.01")),
        (("0.41234", "0.00002"), ("0.4123", "<0.0001")),
        (("0.0041234", "0.0000002"), ("0.004123", "<0.000001")),
        (("0.5", "0.25"), ("0.50", "0.25")),
    ],
)
def test_amounts_have_cents_or_as_many_places_as_tell_something(
    amounts: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    digits = digits_for((Decimal(amount), "USD") for amount in amounts)
    assert tuple(digits.show(Decimal(amount), "USD") for amount in amounts) == shown
    exact = digits_for(((Decimal(amount), "USD") for amount in amounts), exact=True)
    assert [Decimal(exact.show(Decimal(amount), "USD").replace(",", "")) for amount in amounts] == list(
        map(Decimal, amounts)
    )
    assert (list(digits.notes()) == []) == (shown == ("0.50", "0.25"))
    assert list(exact.notes()) == []


def test_rounded_amounts_say_so_and_exact_ones_add_up(ledger: FakeRecords) -> None:
    assert "note: amounts are rounded to 0.000001, sums are of the exact ones; --exact" in ask("cost", "report").stdout
    exact = ask("cost", "report", "--by", "stage", "--exact").stdout
    assert "rounded" not in exact
    stages = [row(exact, f"{name} ")[-3] for name in ("classify", "close_case", "notify_customer", "retrieve_account")]
    draft, workflow = row(exact, "draft_refund ")[-3], row(exact, "(workflow) ")[-3]
    known = [Decimal(text.removesuffix(" + ?")) for text in (*stages, draft, workflow)]
    assert sum(known) == EXACT


@pytest.mark.parametrize(
    ("counts", "said", "view"),
    [
        ([], "", {"requests": 0, "at_least": 0}),
        ([2, 1], "sidecars repeated 3 requests to models; the sums", {"requests": 3, "at_least": 3}),
        ([2, None], "at least 2 requests to models (a counter", {"requests": None, "at_least": 2}),
        ([None], "repeated an unknown number of requests", {"requests": None, "at_least": 0}),
    ],
)
def test_sidecar_retries_are_noted_below_the_table(
    ledger: FakeRecords, counts: list[int | None], said: str, view: dict[str, int | None]
) -> None:
    ledger.unattributed = tuple(UnattributedRetries("llm", at(0), at(2), count) for count in counts)
    shown = ask("cost", "report").stdout
    assert said in shown
    assert ("repeated" in shown) is bool(counts)
    assert json_answer("cost", "report")["unattributed_sidecar_retries"] == view
    nothing = {"requests": 0, "at_least": 0}
    assert json_answer("cost", "report", "--since", "2030-01-01")["unattributed_sidecar_retries"] == nothing


def test_the_work_of_a_task_is_counted_from_journal_and_attempts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    failed, again = attempt_record(0.1, outcome=AttemptOutcome.FAILED), attempt_record(0.6, number=2)
    record = task_record(steps=(step_record("classify", 1, 0.1, attempts=(failed, again)), *steps()[1:]))
    calls = [replace(call, call_id=f"c-{number}") for number, call in enumerate(record.calls)]
    engine = database.connect(url)
    numbers = Prices(engine).numbers(record.charges)
    with engine.begin() as connection:
        save(connection, (record,), numbers)
        connection.execute(insert(MODEL_CALLS), [journal_row(call) for call in calls])
    engine.dispose()
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", url)
    by = ("cost", "report", "--by", "task", "--top", "1")
    assert json_answer(*by)["groups"][0]["work"] == {
        "calls": 4,
        "wasted_calls": 1,
        "step_retries": 1,
    }
    shown = ask(*by).stdout
    assert "4 calls, 1 wasted, 1 step again" in shown
    assert json_answer(*by, "--since", "2026-11-23")["groups"] == []
