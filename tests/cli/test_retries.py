"""`doctor retries`: the shipped files are within their limits, and the command fails above them."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner, Result

from app.cli import opening
from app.cli.root import cli
from app.config.policy import RetryLimits
from app.finance.retry_bounds.bound_schemas import RetryBoundsView
from app.ledger.reading.counting import RequestCounts, StepRequests
from tests.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project's configuration."""
    for name in ("components", "resiliency", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    """Runs the command for the folder."""
    return CliRunner().invoke(cli, ["doctor", "retries", "--folder", str(folder), *words])


def answer_of(folder: Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of the command."""
    result = run(folder, "--json")
    return result.exit_code, json.loads(result.stdout)


def change(folder: Path, file: str, old: str, new: str) -> None:
    """Replaces a text in a file."""
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_project_as_it_is_stays_within_its_limits() -> None:
    """This test fails if more retries are configured than the policy file allows."""
    code, answer = answer_of(ROOT)
    assert (code, answer["ok"], answer["findings"]) == (0, True, [])
    assert {row["name"]: row["over"] for row in answer["targets"]} == {row["name"]: [] for row in answer["targets"]}
    assert len(answer["targets"]) == 7
    assert {row["measured"] is None for row in answer["targets"]} == {True}


@pytest.mark.parametrize(
    ("file", "old", "new", "target", "over"),
    [
        ("resiliency/systems.yaml", "maxRetries: 2", "maxRetries: 3", "accounts", ["requests"]),
        ("resiliency/llm.yaml", "llm: 60s", "llm: 600s", "llm", ["time"]),
        ("config/policy.yaml", "attempts: 30", "attempts: 31", "llm", ["requests"]),
        ("config/policy.yaml", "max_seconds: 300", "max_seconds: 3000", "llm", ["time"]),
        ("config/policy.yaml", 'money_per_step: {USD: "0.25"}', 'money_per_step: {USD: "0.02"}', "llm", ["money"]),
        ("config/prices.yaml", 'input: "0.40"', 'input: "40.00"', "llm", ["money"]),
        ("components/llm.yaml", "conversation.openai", "conversation.mistral", "llm", ["requests"]),
    ],
)
def test_more_than_the_limit_fails(folder: Path, file: str, old: str, new: str, target: str, over: list[str]) -> None:
    change(folder, file, old, new)
    code, answer = answer_of(folder)
    assert (code, answer["ok"]) == (1, False)
    assert next(row for row in answer["targets"] if row["name"] == target)["over"][: len(over)] == over
    assert re.search(rf"^{target} .*over: {over[0]}", run(folder).stdout, re.MULTILINE)


def test_retries_without_end_have_no_figure_and_fail(folder: Path) -> None:
    change(folder, "resiliency/systems.yaml", "maxRetries: 2", "maxRetires: 2")
    change(folder, "resiliency/systems.yaml", "policy: exponential", "policy: constant")
    code, answer = answer_of(folder)
    (accounts,) = (row for row in answer["targets"] if row["name"] == "accounts")
    assert (code, accounts["requests_per_step"], accounts["requests_per_task"]) == (1, None, None)
    assert accounts["layers"] == {"client": 1, "sdk": 1, "sidecar": None, "workflow": 30}
    text = run(folder).stdout
    assert re.search(r"accounts +HTTPEndpoint +1 x 1 x no bound x 30 +no bound +90 +no bound", text)
    assert "retries.systems.maxRetires: unknown key; the keys are policy" in text


def test_a_fault_in_a_file_fails_although_every_figure_is_within_its_limit(folder: Path) -> None:
    change(folder, "resiliency/llm.yaml", "          circuitBreaker: llm", "          circuitBreaker: llama")
    code, answer = answer_of(folder)
    assert code == 1
    assert not any(row["over"] for row in answer["targets"])
    assert [finding["problem"] for finding in answer["findings"]] == ["there is no policy 'llama'"]


def test_a_breaker_that_counts_for_less_time_than_a_call_may_last_fails(folder: Path) -> None:
    for interval, wrong in (("60s", False), ("59s", True), ("30s", True), ("0s", False)):
        shutil.copy(ROOT / "resiliency" / "llm.yaml", folder / "resiliency" / "llm.yaml")
        change(folder, "resiliency/llm.yaml", "interval: 120s", f"interval: {interval}")
        code, answer = answer_of(folder)
        assert (code, bool(answer["findings"])) == (int(wrong), wrong), interval
        if wrong:
            assert answer["findings"][0]["where"].endswith("components.llm.circuitBreaker")
            assert "it never opens; make it 120 s" in answer["findings"][0]["problem"]
    change(folder, "resiliency/systems.yaml", "interval: 60s", "interval: 4s")
    assert answer_of(folder)[0] == 1


def test_probably_billed_requests_have_a_separate_limit(folder: Path) -> None:
    _, answer = answer_of(folder)
    model, system = answer["targets"][0], answer["targets"][1]
    assert (model["requests_per_step"], model["billed_requests_per_step"]) == (30, 3)
    assert system["billed_requests_per_step"] == 0
    assert "llm: at most 3 requests of a step are lost and probably billed" in run(folder).stdout
    change(folder, "config/policy.yaml", "billed_attempts: 3", "billed_attempts: 50")
    assert answer_of(folder)[1]["targets"][0]["billed_requests_per_step"] == 30, "no more than there are attempts"


def test_a_model_without_a_price_is_unpriced_and_no_failure(folder: Path) -> None:
    change(folder, "components/llm.yaml", "value: sandbox-small", "value: unheard-of")
    code, answer = answer_of(folder)
    model = answer["targets"][0]
    assert (code, model["money_per_step"], model["unpriced_models"]) == (0, [], ["unheard-of"])
    text = run(folder).stdout
    assert "unpriced" in text
    assert "llm: no price for unheard-of, so its cost is unknown" in text


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger with nine requests of a model step, and two kinds of steps that call the same system."""
    known = RequestCounts(
        models={"llm": StepRequests(steps=4, requests=13, most=9)},
        steps={"close_case": StepRequests(2, 3, 2), "lookup_order": StepRequests(5, 5, 1)},
        reserves={"llm": (30_000, 1_000)},
        answered={"llm": frozenset({("conversation.openai", "sandbox-large"), ("conversation.openai", "no-price")})},
    )
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", "sqlite://")
    monkeypatch.setattr(opening, "open_requests", lambda: known)


@pytest.mark.usefixtures("ledger")
def test_measured_requests_are_shown(folder: Path) -> None:
    _, answer = answer_of(folder)
    by_name = {row["name"]: row for row in answer["targets"]}
    assert by_name["llm"]["measured"] == {"steps": 4, "requests": 13, "mean": "3.25", "most": 9}
    assert by_name["refunds"]["measured"] == by_name["cases"]["measured"]
    assert by_name["refunds"]["measured"] == {"steps": 2, "requests": 3, "mean": "1.5", "most": 2}
    assert by_name["notifications"]["measured"] is None
    text = run(folder).stdout
    assert re.search(r"^llm .* 3.250, 9 \(4\)", text, re.MULTILINE)
    assert re.search(r"^notifications .* not measured", text, re.MULTILINE)


@pytest.mark.usefixtures("ledger")
def test_the_price_is_that_of_the_most_expensive_model_at_the_largest_reserve(folder: Path) -> None:
    _, answer = answer_of(folder)
    model = answer["targets"][0]
    assert model["money_per_step"] == [{"amount": "0.0408", "currency": "USD"}]  # 3 x (30,000 x 0.40 + 1,000 x 1.60)
    assert model["unpriced_models"] == ["no-price"]


def test_a_ledger_that_cannot_be_read_measures_nothing_and_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", f"sqlite:///{tmp_path}")
    result = run(folder, "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith("not measured: ")
    assert json.loads(result.stdout)["targets"][0]["measured"] is None


@pytest.mark.usefixtures("ledger")
def test_a_ledger_whose_disk_is_full_is_one_line_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> RequestCounts:
        raised = sqlite3.OperationalError("database or disk is full")
        raised.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise OperationalError("INSERT", {}, raised)

    monkeypatch.setattr(opening, "open_requests", full)
    result = run(folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the ledger's disk is full; make room")
    assert result.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_read_is_one_line_with_the_remedy(folder: Path) -> None:
    result = run(folder, "--folder", "/nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: /nowhere/config/policy.yaml: cannot be read")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--policy", "--prices"])
def test_a_missing_file_is_wrong_usage(folder: Path, option: str) -> None:
    result = run(folder, option, "/nowhere.yaml")
    assert result.exit_code == 2
    assert f"Invalid value for {option}: /nowhere.yaml is not there; name a" in result.stderr


def test_a_policy_file_without_limits_is_an_error(folder: Path) -> None:
    policy = folder / "config" / "policy.yaml"
    policy.write_text(policy.read_text().partition("retry_limits:")[0])
    result = run(folder)
    assert (result.exit_code, "retry_limits: the section is missing" in result.stderr) == (1, True)


def test_doctor_without_a_subcommand_checks_everything() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--folder", str(ROOT), "--no-sandbox", "--json"])
    assert {"policy", "components", "resiliency"} <= {finding["name"] for finding in json.loads(result.stdout)}


def keys(model: type[BaseModel]) -> Iterator[str]:
    """The keys of a model and of the models in its fields."""
    for name, field in model.model_fields.items():
        yield name
        pending = [field.annotation]
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not RetryLimits:
                yield from keys(annotation)
            pending += get_args(annotation)


def test_every_key_is_documented_and_every_documented_key_is_one() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().partition("With `--json`: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", section)) == set(keys(RetryBoundsView))
