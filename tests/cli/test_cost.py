"""What the work cost: any dimensions, currencies apart, unknown never zero, and the same usage by other prices."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from app.cli import opening
from app.cli.figures import digits_for
from app.cost.charges import charge_call
from app.cost.price_views import RepricingView
from app.cost.rollup import Dimension
from app.cost.values import Usage
from app.cost.views import ReportView
from app.ledger import database
from app.ledger.prices import Prices
from app.ledger.record import TaskRecord
from app.ledger.saving import save
from app.models import Known
from tests.cli.reading import ask, cells, row, told
from tests.cost.makers import agreement, price_book
from tests.cost.makers import origin as some_origin
from tests.ledgers import FakeRecords
from tests.records import at, call_record, steps, task_record

BOOK = price_book(agreement(), agreement(id="euro", model="model-e", currency="EUR"))
EXACT = Decimal("0.003700975")  # what `task_record()` costs, as far as that is known
PRICES = Path("config/prices.yaml")


def put(ledger: FakeRecords, *records: TaskRecord) -> None:
    ledger.records = {record.task_id: record for record in records}


def with_currencies() -> TaskRecord:
    """A thousand tokens in and none out, in dollars at 2 and in euro at 2 a million."""
    usage, where = Usage(1000, 0, 0), some_origin(at=at(1))
    charges = [*charge_call(BOOK, usage, where), *charge_call(BOOK, usage, replace(where, model="model-e"))]
    return task_record(charges=tuple(charges))


def test_stages_by_tenant_and_a_total(ledger: FakeRecords) -> None:
    lines = ask("cost", "report").stdout.splitlines()
    columns = "tenant stage tokens-in cached tokens-out model compute orchestration rerun total currency known"
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


def test_the_total_line_says_how_much_of_it_is_how_known(ledger: FakeRecords) -> None:
    shown = ask("cost", "report", "--by", "").stdout
    total = ["total", "~4,200 + ?", "300", "~1,240 + ?", "0.001374", "0.000110", "0.000017", "0.002200"]
    assert row(shown, "total ") == [*total, "0.003701 + ?", "USD", "59 % estimated, 2 unreported"]
    assert "note: 2 charges have no quantity" in shown
    assert "`refund-agent cost reconcile`" in shown


def test_a_model_without_a_price_is_loud(ledger: FakeRecords) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(model="new-model"),)))
    shown = ask("cost", "report", "--by", "model").stdout
    assert row(shown, "new-model") == ["new-model", "900", "100", "80", "?", "3 unpriced"]
    assert row(shown, "total ")[-3:] == ["0.000017 + ?", "USD", "3 unpriced"]
    assert "note: 3 charges have no price and are in no sum; `refund-agent price check` says what to add\n" in shown


def test_currencies_stand_in_lines_of_their_own_and_are_never_added(ledger: FakeRecords) -> None:
    put(ledger, with_currencies())
    shown = ask("cost", "report", "--by", "tenant").stdout
    assert [cells(line) for line in shown.splitlines()[1:5]] == [
        ["acme", "2,000", "0", "0", "0.002", "0.002", "EUR", "reported"],
        ["acme", "0.002", "0.002", "USD", "reported"],
        ["total", "2,000", "0", "0", "0.002", "0.002", "EUR", "reported"],
        ["total", "0.002", "0.002", "USD", "reported"],
    ]
    assert "0.004" not in shown


@pytest.mark.parametrize(
    ("estimated", "said"),
    [(1, "<1 % estimated"), (120, "12 % estimated"), (999, ">99 % estimated"), (1000, "estimated"), (0, "reported")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(ledger: FakeRecords, estimated: int, said: str) -> None:
    usages = [Usage(1000 - estimated, 0, 0), Usage(estimated, 0, 0, known=Known.ESTIMATED)]
    charges = [charge_call(BOOK, usage, some_origin(number=number)) for number, usage in enumerate(usages)]
    put(ledger, task_record(charges=tuple(charge for call in charges for charge in call)))
    assert row(ask("cost", "report", "--by", "").stdout, "total ")[-1] == said


@pytest.mark.parametrize("dimension", [each for each in Dimension if each is not Dimension.PRICE_BOOK])
def test_every_dimension_can_be_asked_for_and_loses_nothing(ledger: FakeRecords, dimension: Dimension) -> None:
    view = told("cost", "report", "--by", dimension.value)
    assert view["by"] == [dimension.value]
    keys = [group["key"][dimension.value] for group in view["groups"]]
    assert len(set(keys)) == len(keys) > 0
    assert sum(Decimal(money["amount"]) for group in view["groups"] for money in group["money"]) == EXACT
    assert sum(group["unreported"] for group in view["groups"]) == view["total"]["unreported"] == 2


def test_a_price_book_is_named_by_the_beginning_of_its_digest(ledger: FakeRecords) -> None:
    digest = ledger.records["acme:T-1"].charges[0].book_digest
    assert row(ask("cost", "report", "--by", "price-book").stdout, digest[:12])[0] == digest[:12]
    assert told("cost", "report", "--by", "price-book")["groups"][0]["key"] == {"price-book": digest}


def test_the_json_keeps_its_keys_and_all_digits(ledger: FakeRecords) -> None:
    view = told("cost", "report", "--by", "tenant,kind", "--tenant", "acme")
    assert list(view) == ["since", "until", "tenants", "by", "groups", "total"]
    assert (view["by"], view["tenants"], view["since"]) == (["tenant", "kind"], ["acme"], None)
    assert " ".join(view["total"]) == "key charges money quantities known unreported unpriced"
    money = view["total"]["money"][0]
    assert " ".join(money) == "currency amount list_amount by_known by_kind"
    assert money["amount"] == "0.003700975"
    assert money["by_kind"]["rerun"] == money["by_known"]["estimated"] == "0.0022"
    assert " ".join(view["total"]["quantities"][0]) == "line unit quantity by_known missing"
    assert [group["key"]["kind"] for group in view["groups"]] == ["compute", "model", "orchestration", "rerun"]
    assert ReportView.model_validate(view)


def test_days_and_tenant_choose_the_charges(ledger: FakeRecords) -> None:
    other = task_record(task_id="globex:T-2", tenant="globex")
    put(ledger, *ledger.records.values(), other)
    everything = told("cost", "report", "--by", "tenant")
    assert [group["key"]["tenant"] for group in everything["groups"]] == ["acme", "globex"]
    chosen = told("cost", "report", "--by", "tenant", "--tenant", "globex", "--since", "2026-11-22")
    assert [group["key"]["tenant"] for group in chosen["groups"]] == ["globex"]
    until = told("cost", "report", "--until", "2026-11-22")  # that day is not among them
    assert (until["groups"], until["total"]["charges"], until["until"]) == ([], 0, "2026-11-22")


def test_nothing_charged_is_said_and_is_no_error(ledger: FakeRecords) -> None:
    result = ask("cost", "report", "--since", "2027-01-01", "--until", "2027-02-01")
    assert result.exit_code == 0
    assert result.stdout.endswith("nothing was charged since 2027-01-01 before 2027-02-01\n")
    put(ledger)
    assert ask("cost", "report").stdout.endswith("nothing was charged yet\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--by", "tenant,colour"), "'colour'; there are tenant, agent, workflow"),
        (("--since", "2026-11-22", "--until", "2026-11-22"), "--until 2026-11-22 is not after"),
        (("--since", "yesterday"), "yesterday"),
        (("--by", "tenant", "--prices", "x.yaml"), "--by does not go with --prices"),
    ],
)
def test_wrong_usage_is_exit_code_2(ledger: FakeRecords, words: tuple[str, ...], named: str) -> None:
    result = ask("cost", "report", *words)
    assert result.exit_code == 2
    assert named in " ".join(result.stderr.split())


# By another price book.


def other_prices(tmp_path: Path, old: str, new: str) -> str:
    """The project's price file with one thing otherwise."""
    text = PRICES.read_text()
    assert text.count(old) == 1
    path = tmp_path / "other.yaml"
    path.write_text(text.replace(old, new))
    return str(path)


def test_the_same_usage_by_other_prices(ledger: FakeRecords, tmp_path: Path) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(),)))
    dearer = other_prices(
        tmp_path,
        '{input: "0.40", cached_input: "0.10", output: "1.60"}',
        '{input: "0.80", cached_input: "0.10", output: "1.60"}',
    )
    shown = ask("cost", "report", "--prices", dearer).stdout
    known = ["USD", "reported, reported"]
    model = ["model", "conversation.openai", "sandbox-small", "0.000458", "0.000778", "0.000320", *known]
    assert row(shown, "model ") == model
    assert row(shown, "compute ") == ["compute", "-", "-", "0.000007", "0.000007", "0.000000", *known]
    assert row(shown, "total ") == ["total", "0.000475", "0.000795", "0.000320", *known]
    view = told("cost", "report", "--prices", dearer)
    assert list(view) == ["since", "until", "tenants", "billed_books", "book", "billed", "repriced", "changes"]
    assert view["billed_books"] == [ledger.records["acme:T-1"].charges[0].book_digest] != [view["book"]]
    assert f"billed by book {view['billed_books'][0][:12]}, repriced by book {view['book'][:12]}\n" in shown
    change = next(each for each in view["changes"] if each["kind"] == "model")
    assert (change["billed"], change["repriced"], change["change"]) == ("0.000458", "0.000778", "0.00032")
    assert RepricingView.model_validate(view)


def test_a_price_that_the_other_book_lacks_is_no_saving(ledger: FakeRecords, tmp_path: Path) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(),)))
    other = other_prices(tmp_path, "model: sandbox-*", "model: others-*")
    shown = ask("cost", "report", "--prices", other).stdout
    assert row(shown, "model ")[3:] == ["0.000458", "?", "?", "USD", "reported, unpriced"]
    assert row(shown, "total ")[1:4] == ["0.000475", "0.000017 + ?", "-0.000458 + ?"]
    assert f"note: {other} has no price for 3 charges, which are in no repriced sum; `refund-agent price check" in shown


def test_a_price_file_that_is_wrong_is_said_in_one_line(ledger: FakeRecords, tmp_path: Path) -> None:
    result = ask("cost", "report", "--prices", str(tmp_path / "none.yaml"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "none.yaml" in result.stderr


# From the real ledger.


def test_the_ledgers_own_sums_are_those_of_its_charges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    records = (task_record(), task_record(task_id="globex:T-2", tenant="globex", outcome=None, refund=None))
    engine = database.connect(url)
    numbers = Prices(engine).numbers(charge for record in records for charge in record.charges)
    with engine.begin() as connection:
        save(connection, records, numbers)
    engine.dispose()
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", url)
    by = ("cost", "report", "--by", "tenant,stage,model,outcome,kind")
    found = told(*by)
    monkeypatch.setattr(opening, "open_records", lambda: FakeRecords(*records))
    assert found == told(*by)


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
    assert [Decimal(exact.show(Decimal(each), "USD").replace(",", "")) for each in amounts] == list(
        map(Decimal, amounts)
    )
    assert (list(digits.notes()) == []) == (shown == ("0.50", "0.25"))
    assert list(exact.notes()) == []


def test_rounded_amounts_say_so_and_exact_ones_add_up(ledger: FakeRecords) -> None:
    assert "note: amounts are rounded to 0.000001, sums are of the exact ones; --exact" in ask("cost", "report").stdout
    exact = ask("cost", "report", "--by", "stage", "--exact").stdout
    assert "rounded" not in exact
    stages = [row(exact, f"{name} ")[-3] for name in ("classify", "close_case", "notify_customer", "retrieve_account")]
    drafted, whole = row(exact, "draft_refund ")[-3], row(exact, "(workflow) ")[-3]
    known = [Decimal(each.removesuffix(" + ?")) for each in (*stages, drafted, whole)]
    assert sum(known) == EXACT
