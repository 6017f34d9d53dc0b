"""What a parked task takes for a word to go on."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from dapr.ext.workflow import TaskFailedError

from app.domain.errors import ModelRefused
from app.domain.models import Frozen, TaskStatus
from app.worker.worker import failure_details
from app.workflow.steps import RESUMED, Steps
from tests.makers import task
from tests.scripted import Script

JUNK: list[Any] = [None, {}, [], "", 0, True, "resume", {"resume": False}, {"resume": "true"}, {"resume": [True]}]


def nothing(_name: str, _question: Frozen) -> Frozen:
    """No step is answered here."""
    raise AssertionError


def test_only_our_own_word_lets_a_parked_task_go_on_and_the_others_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(nothing)
    steps = Steps(script, task().rules)
    running = steps.run("classify", task(), Frozen)
    next(running)
    failure = failure_details(ModelRefused("the key is wrong"))
    assert running.throw(TaskFailedError("failed", failure)) == "resume"
    for junk in [*JUNK, {"resume": True, "more": datetime.now(UTC)}]:
        assert running.send(junk) == "resume"
    shown = script.shown[-1]
    assert shown is not None
    assert (shown.status, shown.reason) == (TaskStatus.PARKED, "classify: the key is wrong"), "without its code"
    assert len(caplog.records) == len(JUNK) + 1
    script.is_replaying = True
    running.send("again")
    assert len(caplog.records) == len(JUNK) + 1
    assert caplog.records[0].levelno == logging.WARNING

    running.send(RESUMED)
    assert script.steps() == ["classify", "classify"]
    assert script.shown[-1] is None
