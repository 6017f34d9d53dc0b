"""Every answer is what it was: a change of output is deliberate, and seen in the diff of expected/."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.answers import EXPECTED, answers, file_of


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """All answers of today's program, as JSON has them."""
    return {file_of(name).name: json.loads(json.dumps(answer)) for name, answer in answers()}


def test_every_answer_has_its_file_and_every_file_its_answer(given: dict[str, Any]) -> None:
    assert set(given) == {file.name for file in EXPECTED.glob("*.json")}


@pytest.mark.parametrize("file", sorted(EXPECTED.glob("*.json")), ids=lambda file: file.stem)
def test_it_is_what_it_was(given: dict[str, Any], file: Any) -> None:
    assert given[file.name] == json.loads(file.read_text()), "if it is meant: python -m tests.golden.answers"
