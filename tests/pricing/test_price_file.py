"""The price file: strict and exact, and every mistake is named with its line."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.domain.errors import ConfigurationError
from app.pricing import price_file
from tests.pricing.makers import PROJECT_FILE, agreement
from tests.pricing.makers import price_file as made


def complaint(folder: Path, old: str, new: str) -> str:
    """The error for the project's own file with one text replaced."""
    text = PROJECT_FILE.read_text()
    assert old in text
    changed = folder / "prices.yaml"
    changed.write_text(new.join(text.rsplit(old, 1)))  # the comments come first
    with pytest.raises(ConfigurationError) as error:
        price_file.read(changed)
    return str(error.value).removeprefix(f"{folder}/")


def line_of(text: str) -> int:
    return next(
        number for number, line in enumerate(PROJECT_FILE.read_text().splitlines(), start=1) if line.strip() == text
    )


def test_the_projects_own_file_is_good() -> None:
    file = price_file.read(PROJECT_FILE).value
    assert [agreement.id for agreement in file.agreements] == ["sandbox"]
    assert "made up" in file.agreements[0].source


def test_the_example_in_the_files_comments_can_be_used(tmp_path: Path) -> None:
    text = PROJECT_FILE.read_text()
    begin = text.index("#   - id: example-2026")
    example = text[begin : text.index("agreements:", begin)]
    used = tmp_path / "prices.yaml"
    used.write_text(text.replace("agreements:\n", "agreements:\n" + example.replace("#   ", "  ")))
    agreement = price_file.read(used).value.agreements[0]
    assert agreement.tiers[0].above_input_tokens == 200_000
    assert agreement.discount_percent == 10


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('output: "1.60"', "output: 1.60", "agreements.0.per_million_tokens.output: write 1.6 in quotes"),
        ('output: "1.60"', 'output: "1,60"', "'1,60' is not a plain decimal number"),
        ('output: "1.60"', 'output: "-1"', "Input should be greater than or equal to 0"),
        ('output: "1.60"', 'output: "NaN"', "'NaN' is not a plain decimal number"),
        ('output: "1.60"', 'output: "1e3"', "'1e3' is not a plain decimal number"),
        ('output: "1.60"', 'output: "1_000"', "'1_000' is not a plain decimal number"),
        ('output: "1.60"', "output: 015", "015 is not a plain decimal number: write it as in 0.40 or 15"),
        ('output: "1.60"', "output: 1:30", "1:30 is not a plain decimal number"),
        ('output: "1.60"', "output: 1_000", "1_000 is not a plain decimal number"),
        ('output: "1.60"', "output: .inf", ".inf is not a plain decimal number"),
        ('output: "1.60"', "output: 0x10", "0x10 is not a plain decimal number"),
        ('output: "1.60"', "output: 1e3", "1e3 is not a plain decimal number"),
        ('output: "1.60"', "output: 1.60", "write 1.6 in quotes"),
        ('output: "1.60"', "output: true", "True is not a price"),
        ('output: "1.60"', 'output: "1.6000000000001"', "no more than 12 decimal places"),
        ('discount_percent: "50"', 'discount_percent: "150"', "less than or equal to 100"),
        ('batch: {discount_percent: "50"}', "batch: {}", "either per_million_tokens or discount_percent"),
        ("model: sandbox-*", "modell: sandbox-*", "agreements.0.modell: unknown key"),
        ("stale_after_days: 90", 'stale_after_days: "90"', "stale_after_days: must be a whole number"),
        ("from: 2020-01-01", "from: yesterday", "infrastructure.0.from: Input should be a valid datetime"),
        ("from: 2020-01-01", "from: 2020-01-01T00:00:00", "has no zone"),
        ("from: 2020-01-01", "from: 2020-01-01\n    to: 2020-01-01", "ends (2020-01-01 00:00) before it begins"),
        ("id: laptop", "id: sandbox", "id sandbox is used twice"),
        ("source: made up for the sandbox, about what a small h", "sauce: h", "agreements.0.source: Field required"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in complaint(tmp_path, old, new)


def test_a_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    said = complaint(tmp_path, "model: sandbox-*", "modell: sandbox-*")
    assert f"prices.yaml:{line_of('model: sandbox-*')}: agreements.0.modell: unknown key" in said


def tier(above: int) -> dict[str, object]:
    return {"above_input_tokens": above, "per_million_tokens": {"input": "1", "output": "1"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"per_million_tokens": None}, "neither per_million_tokens nor a discount_percent"),
        ({"per_million_tokens": None, "discount_percent": "5", "currency": "EUR"}, "in USD, like the list, not EUR"),
        ({"tiers": [tier(2), tier(1)]}, "list each start once, lowest first"),
        ({"tiers": [tier(2)], "per_million_tokens": None, "discount_percent": "5"}, "tiers need per_million_tokens"),
    ],
)
def test_ambiguous_agreements_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        made(agreement(**changes))


def test_a_day_starts_at_midnight_utc_and_other_zones_are_converted() -> None:
    file = made(agreement(**{"from": datetime.fromisoformat("2026-03-01T02:00:00+02:00")}))
    assert file.agreements[0].from_ == datetime(2026, 3, 1, tzinfo=UTC)


def test_digits_are_kept() -> None:
    file = made(agreement(per_million_tokens={"input": "12345678.123456789012", "output": 3}))
    prices = file.agreements[0].per_million_tokens
    assert prices is not None
    assert (prices.input, prices.output) == (Decimal("12345678.123456789012"), Decimal(3))
