"""Where a task stands, as a reader is told it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.models import TaskStatus
from app.domain.standing import ended_standing

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("output", "told"),
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
def test_why_a_task_was_ended_is_told_in_its_words(output: str | None, told: str) -> None:
    assert ended_standing(TaskStatus.TERMINATED, NOW, output, None).error == told


def test_a_failure_is_told_before_anything_else() -> None:
    failure = "the history does not verify"
    assert ended_standing(TaskStatus.FAILED, NOW, '{"reason": "x"}', failure).error == failure
