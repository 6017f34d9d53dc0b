"""What the wrapper of every activity makes of errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.domain.errors import ModelBusy, StepFault
from app.domain.models import Deferred
from app.workflow.activities.services import as_activity


class Context:
    """What the wrapper reads of an activity's context."""

    workflow_id = "acme:T-1"


def outcome(error: Exception) -> Any:
    """What the wrapped activity returns when it raises `error`."""

    async def stage(_context: object, _question: object) -> object:
        raise error

    return asyncio.run(as_activity(stage)(Context(), None))  # type: ignore[arg-type]


def test_a_busy_model_is_no_failure_but_a_pause() -> None:
    assert outcome(ModelBusy("llm", 42.0)) == Deferred(deferred_seconds=42.0)


def test_a_bug_becomes_a_fault_that_quotes_nothing() -> None:
    with pytest.raises(StepFault) as fault:
        outcome(KeyError("jane@example.com"))
    assert "jane" not in str(fault.value)
    assert "KeyError in stage" in str(fault.value)
