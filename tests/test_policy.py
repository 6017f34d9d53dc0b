"""The policy file: what is wrong in it is named with its line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from app import policy
from app.errors import ConfigurationError

PROJECT_FILE = Path(__file__).parent.parent / "config" / "policy.yaml"


def complaint(folder: Path, old: str, new: str) -> str:
    """What is said of the project's own file with one thing changed."""
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
    said = complaint(tmp_path, "serial_refunds:", "serial_refund:")
    line = PROJECT_FILE.read_text().splitlines().index("  serial_refunds: 5") + 1
    assert f"policy.yaml:{line}: approval.serial_refund: unknown key" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_turns: 4", "max_turns: many", "drafting.max_turns: Input should be a valid integer"),
        ("max_turns: 4", "max_turns: 0", "drafting.max_turns: Input should be greater than or equal to 1"),
        ('min_confidence: "0.70"', 'min_confidence: "70"', "approval.min_confidence"),
        ('USD: "100.00"', 'USD: "-1"', "approval.limits.USD"),
        ("attempts: 30", "attempts: [30", "not valid YAML"),
        ("retries:\n", "retrys:\n", "retrys: unknown key"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in complaint(tmp_path, old, new)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory; restore it"):
        policy.load(tmp_path / "none.yaml")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "policy.yaml"
    empty.write_text("")
    with pytest.raises(ConfigurationError, match=r"policy\.yaml:1"):
        policy.load(empty)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"approval: \x00"])
def test_what_is_no_text_is_an_error(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "policy.yaml"
    broken.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not text in UTF-8"):
        policy.load(broken)
