"""The step that a running task is stuck at: why it failed, how often, and when it is tried again, read from the
history."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from app.dapr.history.causes import code_of, message_of
from app.dapr.history.model import Attempt, AttemptOutcome, Step, WorkflowRun
from app.domain.errors import RefundAgentError
from app.domain.models import Retrying

log = logging.getLogger(__name__)

# A task whose last turn is younger than this is at work, so its history is not read.
STUCK_AFTER = timedelta(seconds=2)
_ERROR_CHARACTERS = 300


class Stuck:
    """Finds the step that a task is stuck at. `history` reads one run and raises RefundAgentError; `clock` gives the
    time in UTC."""

    def __init__(self, history: Callable[[str], WorkflowRun], clock: Callable[[], datetime]) -> None:
        self._history = history
        self._clock = clock

    def look(self, task_id: str, last_turn: datetime | None) -> Retrying | None:
        """The step that is retried; None for a task that is at work, or whose history cannot be read now."""
        if last_turn is None or self._clock() - last_turn < STUCK_AFTER:
            return None
        try:
            return retrying(self._history(task_id))
        except (RefundAgentError, ValueError) as error:
            log.info("task %s: the step it is stuck at cannot be read: %s", task_id, type(error).__name__)
            return None


def retrying(run: WorkflowRun) -> Retrying | None:
    """The step that failed last and has not completed since; None if no step will be tried again."""
    stuck = [
        step
        for step in run.steps
        if _last_failure(step) is not None and step.last.outcome is not AttemptOutcome.COMPLETED
    ]
    if not stuck or run.ended_at is not None:
        return None
    step = max(stuck, key=lambda step: _failed_at(_last_failure(step)))
    failed = _last_failure(step)
    due = [pause.due_at for pause in run.pauses if pause.of == step.execution_id and pause.ended_at is None]
    if failed is None or (not due and step.last is failed):
        return None  # it was the last attempt: the task parks, and its status says so
    root = failed.failure.root if failed.failure else None
    error = message_of(root) if root else "it failed"
    return Retrying(
        step=step.name,
        attempt=failed.number,
        attempts=_max_attempts(run),
        error=" ".join(error.split())[:_ERROR_CHARACTERS],
        code=(code_of(root) if root else "") or None,
        next_at=due[0].astimezone(UTC).isoformat(timespec="seconds") if due else None,
    )


def _last_failure(step: Step) -> Attempt | None:
    """The step's last failed attempt."""
    return next(
        (
            attempt
            for attempt in reversed(step.attempts)
            if attempt.outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST)
        ),
        None,
    )


def _failed_at(attempt: Attempt | None) -> datetime:
    moment = attempt.ended_at or attempt.scheduled_at if attempt else None
    return moment or datetime.min.replace(tzinfo=UTC)


def _max_attempts(run: WorkflowRun) -> int | None:
    """The number of attempts that the task's rules allow, from its input; None if the input has no such rule."""
    try:
        return int(json.loads(run.input.text if run.input else "")["rules"]["retries"]["attempts"])
    except (ValueError, KeyError, TypeError):
        return None
