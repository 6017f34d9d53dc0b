"""The policy file: every mistake is named with its line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from app.config import policy
from app.domain.errors import ConfigurationError
from app.workflow.steps import TaskInput
from tests.makers import task
from tests.paths import ROOT

PROJECT_FILE = ROOT / "config" / "policy.yaml"


def complaint(folder: Path, old: str, new: str) -> str:
    """The error for the project's policy file with one text replaced."""
    text = PROJECT_FILE.read_text()
    assert old in text
    changed = folder / "policy.yaml"
    changed.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError) as error:
        policy.load(changed)
    return str(error.value).removeprefix(str(folder) + "/")


def test_the_projects_own_file_is_good() -> None:
    rules = policy.load(PROJECT_FILE)
    assert rules.limit("EUR") == Decimal("100.00")
    assert rules.limit("JPY") == 0


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    message = complaint(tmp_path, "serial_refunds:", "serial_refund:")
    line = PROJECT_FILE.read_text().splitlines().index("  serial_refunds: 5") + 1
    assert f"policy.yaml:{line}: approval.serial_refund: unknown key" in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_turns: 4", "max_turns: many", "drafting.max_turns: 'many' is not a plain decimal number"),
        ("max_turns: 4", "max_turns: yes", "drafting.max_turns: 'True' is not a plain decimal number"),
        ("max_turns: 4", "max_turns: 04", "04 is not a plain decimal number: write it as in 0.40 or 15"),
        ('USD: "100.00"', "USD: 1:40", "1:40 is not a plain decimal number"),
        ('USD: "100.00"', 'USD: "1e2"', "limits.USD: '1e2' is not a plain decimal number"),
        ("time_limit_hours: 72", "time_limit_hours: .inf", ".inf is not a plain decimal number"),
        ("time_limit_hours: 72", 'time_limit_hours: "inf"', "'inf' is not a plain decimal number"),
        ("time_limit_hours: 72", "time_limit_hours: 999999999", "less than or equal to 87600"),
        ("max_turns: 4", "max_turns: 0", "drafting.max_turns: Input should be greater than or equal to 1"),
        ('min_confidence: "0.70"', 'min_confidence: "70"', "approval.min_confidence"),
        ('USD: "100.00"', 'USD: "-1"', "approval.limits.USD"),
        ("attempts: 30", "attempts: [30", "not valid YAML"),
        ("\nretries:\n", "\nretrys:\n", "retrys: unknown key"),
        ("model_requests_per_step: 30", "model_requests_per_step: 0", "retry_limits.model_requests_per_step: Input"),
        ("hours_until_parked:", "days_until_parked:", "retry_limits.days_until_parked: unknown key"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in complaint(tmp_path, old, new)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="No such file or directory; run this in the project's folder, restore it"
    ):
        policy.load(tmp_path / "none.yaml")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "policy.yaml"
    empty.write_text("")
    with pytest.raises(ConfigurationError, match=r"policy\.yaml:1"):
        policy.load(empty)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"approval: \x00"])
def test_a_file_that_is_not_text_is_an_error(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "policy.yaml"
    broken.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not text in UTF-8"):
        policy.load(broken)


def test_the_limits_of_retries_are_read_apart_from_the_rules() -> None:
    assert policy.retry_limits(PROJECT_FILE).model_requests_per_step == 30
    assert "retry_limits" not in policy.load(PROJECT_FILE).model_dump()


def test_a_file_without_limits_still_works_and_says_what_is_missing_to_those_who_ask(tmp_path: Path) -> None:
    older = tmp_path / "policy.yaml"
    older.write_text(PROJECT_FILE.read_text().partition("retry_limits:")[0])
    assert policy.load(older) == policy.load(PROJECT_FILE)
    with pytest.raises(ConfigurationError, match="retry_limits: the section is missing, so nothing is checked"):
        policy.retry_limits(older)


# The rules as they are in the history of a task of the first version.
FIRST_INPUT = """
{"tenant": "acme", "ticket_id": "T-1", "customer_id": "C-1", "order_id": null, "rules": {
 "approval": {"limits": {"USD": "100.00", "EUR": "100.00", "GBP": "100.00", "CHF": "100.00"},
              "min_confidence": "0.70", "serial_refunds": 5, "time_limit_hours": 72.0},
 "drafting": {"max_turns": 4},
 "retries": {"first_seconds": 5.0, "max_seconds": 300.0, "attempts": 30}}}
"""


def test_the_input_of_a_task_keeps_its_shape() -> None:
    """Later versions read a history, and during a rollout earlier ones too."""
    first = TaskInput.model_validate_json(FIRST_INPUT)
    assert first.rules.retries.first_seconds == 5
    now = task().model_dump(mode="json")
    assert now["rules"].keys() == {"approval", "drafting", "retries"}
    assert now["rules"]["retries"].keys() == {"first_seconds", "max_seconds", "attempts"}
