"""The state of an ended task."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.models import TaskStatus
from app.domain.standing import ended_standing

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ('{"reason": "sent twice"}', "sent twice"),
        ('{"reason": "said {\\"so\\"}"}', 'said {"so"}'),
        ('{"other": 1}', '{"other": 1}'),
        ("[1]", "[1]"),
        ("no JSON", "no JSON"),
        (None, "terminated"),
        ("", "terminated"),
    ],
)
def test_the_reason_of_a_termination_is_kept(output: str | None, error: str) -> None:
    assert ended_standing(TaskStatus.TERMINATED, NOW, output, None).error == error


def test_a_failure_takes_precedence() -> None:
    failure = "the history does not verify"
    assert ended_standing(TaskStatus.FAILED, NOW, '{"reason": "x"}', failure).error == failure
