"""`price show` for models in use and named ones, and `price check` with the line of each mistake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.finance.price_schemas import CheckView, PricesView
from tests.cli.reading import ask, json_answer, row
from tests.ledgers import FakeRecords
from tests.records import call_record, interrupted_call, task_record

PRICES = Path("config/prices.yaml")


def file_with(tmp_path: Path, text: str) -> str:
    """Writes a price file with this text."""
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return str(path)


def file_with_agreements(tmp_path: Path, more: str) -> str:
    """Writes the project's price file with further agreements; returns its path and the line of the first of them."""
    head, _, tail = PRICES.read_text().partition("agreements:\n")
    return file_with(tmp_path, f"{head}agreements:\n{more}{tail}")


def test_the_models_in_use_have_their_price_and_where_it_comes_from(ledger: FakeRecords) -> None:
    shown = ask("price", "show").stdout
    price = ["conversation.openai", "sandbox-small", "0.4", "0.1", "1.6", "USD", "prices.yaml/sandbox", "2026-11-22"]
    assert row(shown, "conversation.openai") == price
    compute = ["compute", "0.0000137", "1 seconds", "USD", "2020-01-01", "prices.yaml/laptop", "2026-11-22"]
    assert row(shown, "compute") == compute
    assert row(shown, "step_writes")[1:3] == ["0.625", "1,000,000 writes"]


def test_a_model_in_use_without_a_price_says_why(ledger: FakeRecords) -> None:
    ledger.records = {"acme:T-1": task_record(calls=(call_record(model="new-model"),))}
    shown = ask("price", "show").stdout
    assert row(shown, "conversation.openai") == ["conversation.openai", "new-model", "none"]
    assert "note: no price: model new-model of provider conversation.openai is not in" in shown


def test_a_model_is_looked_up_with_its_provider(ledger: FakeRecords) -> None:
    shown = ask("price", "show", "gpt-5-mini", "--provider", "conversation.openai").stdout
    assert row(shown, "conversation.openai")[2:6] == ["0.25", "0.025", "2", "USD"]
    only = json_answer("price", "show", "--provider", "openai")["prices"]
    assert [price["model"] for price in only] == ["sandbox-small"]  # in use, and of that provider
    assert json_answer("price", "show", "--provider", "anthropic")["prices"] == []


def test_a_model_without_provider_is_looked_up_where_it_is_listed_or_in_use(ledger: FakeRecords) -> None:
    listed = json_answer("price", "show", "gpt-5-mini")["prices"]
    assert [price["provider"] for price in listed] == ["openai"]
    used = json_answer("price", "show", "sandbox-small")["prices"]
    assert [(price["provider"], price["problem"]) for price in used] == [("conversation.openai", "")]
    unknown = json_answer("price", "show", "no-such-model")["prices"]
    assert [price["provider"] for price in unknown] == [""]
    assert "no-such-model" in unknown[0]["problem"]


def test_tiers_have_a_row_each_and_a_discount_shows_the_list_price(ledger: FakeRecords, tmp_path: Path) -> None:
    prices = file_with_agreements(
        tmp_path,
        """  - id: cut
    provider: openai
    model: gpt-5-mini
    from: 2026-01-01
    discount_percent: "10"
    source: a contract
    checked: 2026-11-22
""",
    )
    shown = ask("price", "show", "gpt-5-mini", "--provider", "openai", "--prices", prices).stdout
    assert row(shown, "openai")[2:5] == ["0.225 (list 0.25)", "0.0225 (list 0.025)", "1.8 (list 2)"]
    long = [
        row["above"] for row in json_answer("price", "show", "claude-sonnet-4-5", "--provider", "anthropic")["prices"]
    ]
    assert long == [None, 200_000]


def test_prices_are_shown_as_of_a_day(ledger: FakeRecords) -> None:
    early = json_answer("price", "show", "sandbox-small", "--at", "2019-12-31")
    assert early["at"] == "2019-12-31T00:00:00Z"
    assert "sandbox-small" in early["prices"][0]["problem"]
    assert early["infrastructure"] == []
    assert "no infrastructure price is valid then" in ask("price", "show", "--at", "2019-12-31").stdout
    assert ask("price", "show", "--at", "soon").exit_code == 2


def test_without_a_ledger_a_named_model_is_still_looked_up() -> None:
    result = ask("price", "show", "gpt-5-mini")
    assert result.exit_code == 0
    assert row(result.stdout, "openai")[1] == "gpt-5-mini"
    assert "no ledger here" in result.stderr


def test_the_json_keeps_its_keys(ledger: FakeRecords) -> None:
    view = json_answer("price", "show")
    assert list(view) == ["book", "at", "prices", "infrastructure"]
    assert " ".join(view["prices"][0]) == (
        "provider model mode price_id currency above contracted listed source checked where problem"
    )
    assert " ".join(view["infrastructure"][0]) == (
        "price_id meter currency contracted_unit_price per source checked where begins ends"
    )
    assert view["prices"][0]["contracted"] == {"input": "0.4", "cached_input": "0.1", "output": "1.6"}
    assert view["prices"][0]["where"].startswith("config/prices.yaml:")
    assert PricesView.model_validate(view)


# `price check`.


def test_the_projects_own_file_is_right(ledger: FakeRecords) -> None:
    result = ask("price", "check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("book ")
    assert ": nothing is wrong" in result.stdout


def test_a_mistake_is_named_with_its_line_and_remedy(ledger: FakeRecords, tmp_path: Path) -> None:
    prices = file_with_agreements(
        tmp_path,
        """  - id: first
    provider: openai
    model: model-a
    from: 2026-01-01
    per_million_tokens: {input: "2", output: "8"}
    source: a contract
    checked: 2026-11-22
  - id: second
    provider: openai
    model: model-a
    from: 2026-06-01
    per_million_tokens: {input: "1", output: "4"}
    source: a contract
    checked: 2026-11-22
""",
    )
    result = ask("price", "check", "--prices", prices)
    assert result.exit_code == 1
    line = Path(prices).read_text().splitlines().index("  - id: first") + 1
    finding = row(result.stdout, "error")
    assert finding[1].endswith(f"prices.yaml:{line + 7}")
    assert "two prices overlap in time" in finding[3]
    assert finding[4] == "give first `to: 2026-06-01`"
    view = CheckView.model_validate_json(ask("price", "check", "--prices", prices, "--json").stdout)
    assert [(finding.severity, finding.where) for finding in view.findings] == [("error", finding[1])]


def test_a_model_in_use_without_a_price_is_an_error(ledger: FakeRecords) -> None:
    ledger.records = {"acme:T-1": task_record(calls=(call_record(model="new-model"),))}
    result = ask("price", "check", "--json")
    assert result.exit_code == 1
    view = CheckView.model_validate_json(result.stdout)
    assert view.models_in_use == (("conversation.openai", "new-model"),)
    assert [finding.value for finding in view.findings] == ["conversation.openai new-model"]


def test_a_model_that_was_called_lately_and_retires_is_an_error(ledger: FakeRecords, tmp_path: Path) -> None:
    facts = """models:
  - provider: conversation.openai
    model: sandbox-*
    retires: 2026-12-01
    source: the provider's page
    checked: 2026-11-22
"""
    prices = file_with(tmp_path, PRICES.read_text() + facts)
    calls = [call_record(call_id=f"c{days}", started_at=datetime.now(UTC) - timedelta(days=days)) for days in (29, 31)]
    for call, expected in zip(calls, (1, 0), strict=True):
        ledger.records = {"acme:T-1": task_record(calls=(call,))}
        result = ask("price", "check", "--prices", prices, "--json")
        assert result.exit_code == expected
        findings = CheckView.model_validate_json(result.stdout).findings
        retiring = [finding for finding in findings if finding.value == "conversation.openai sandbox-small, 2026-12-01"]
        assert len(retiring) == expected


def test_calls_that_failed_before_a_model_was_named_are_reported(ledger: FakeRecords) -> None:
    nameless = interrupted_call(model="", provider="conversation.openai")
    ledger.records = {"acme:T-1": task_record(calls=(call_record(), nameless))}
    result = ask("price", "check", "--json")
    assert result.exit_code == 0
    (finding,) = CheckView.model_validate_json(result.stdout).findings
    assert (finding.value, finding.severity) == ("conversation.openai", "warning")
    assert "before their model was known" in finding.problem


def test_a_warning_is_no_failure(ledger: FakeRecords, tmp_path: Path) -> None:
    old = PRICES.read_text().replace('version: "0.2.3"', 'version: "0.2.2"')
    result = ask("price", "check", "--prices", file_with(tmp_path, old))
    assert result.exit_code == 0
    assert row(result.stdout, "warning")[2] == "0.2.2"


def test_without_a_ledger_only_the_file_is_checked() -> None:
    result = ask("price", "check", "--json")
    assert result.exit_code == 0
    assert CheckView.model_validate_json(result.stdout).models_in_use is None
    assert "no ledger here, so the models in use are unknown" in result.stderr


def test_an_unreadable_file_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUND_AGENT_PRICES_FILE", file_with(tmp_path, "agreements: 7\n"))
    for words in (("price", "check"), ("price", "show")):
        result = ask(*words)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert "prices.yaml:1" in result.stderr
