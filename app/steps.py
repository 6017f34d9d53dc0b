"""What every step of a task shares: slow retries, parking instead of failing, and saying what it waits for.

Deterministic, as all workflow code: its only sources are the workflow's input and its history.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from datetime import timedelta
from typing import Any, TypeVar

from dapr.ext.workflow import DaprWorkflowContext, RetryPolicy, TaskFailedError, when_all

from app.models import Decision, Frozen, Progress, Reference, TaskStatus, TenantId, TicketId, task_id
from app.policy import Retries, Rules

Output = TypeVar("Output", bound=Frozen)
Step = Generator[Any, Any, Output]

DECISION = "decision"
RESUME = "resume"
_REASON_CHARACTERS = 300


class TaskInput(Frozen):
    """What a task starts with: whose ticket, and the rules that hold for it. No text."""

    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference | None
    rules: Rules

    @property
    def task_id(self) -> str:
        """The workflow instance id."""
        return task_id(self.tenant, self.ticket_id)


class Steps:
    """Runs the steps of one task. A step that fails for good parks the task; it never fails it."""

    def __init__(self, context: DaprWorkflowContext, rules: Rules) -> None:
        self._context = context
        self._rules = rules
        self._patience = patience(rules.retries, context.instance_id)

    def run(self, name: str, question: Frozen, output: type[Output]) -> Step[Output]:
        """One step: the activity `name`, retried slowly, parked when that does not help."""
        (result,) = yield from self.run_all([(name, question, output)])
        return result

    def run_all(self, questions: list[tuple[str, Frozen, type[Output]]]) -> Generator[Any, Any, list[Output]]:
        """Several steps side by side; parked together when one fails for good."""
        while True:
            calls = [
                self._context.call_activity(name, input=question, retry_policy=self._patience)
                for name, question, _ in questions
            ]
            try:
                results = yield when_all(calls)
                return [
                    output.model_validate(result) for result, (_, _, output) in zip(results, questions, strict=True)
                ]
            except TaskFailedError as failure:
                yield from self._parked(questions[0][0], failure)

    def decision(self) -> Generator[Any, Any, Decision | None]:
        """Waits durably for a person: no thread, no memory. None when the time limit is over."""
        limit = timedelta(hours=self._rules.approval.time_limit_hours)
        try:
            answer = yield self._context.wait_for_external_event(DECISION, timeout=limit)
        except TimeoutError:
            return None
        return Decision.model_validate(answer)

    def show(self, progress: Progress | None) -> None:
        """Says what the task waits for; None that it goes on."""
        self._context.set_custom_status(progress.model_dump_json() if progress else "")

    def _parked(self, name: str, failure: TaskFailedError) -> Generator[Any, Any, None]:
        reason = f"{name}: {failure.details.message}"[:_REASON_CHARACTERS]
        self.show(Progress(status=TaskStatus.PARKED, reason=reason))
        yield self._context.wait_for_external_event(RESUME)
        self.show(None)


def patience(retries: Retries, instance_id: str) -> RetryPolicy:
    """The slow retries. Each task's first pause is its own (up to twice the shortest), so that tasks which failed
    together do not come back together; it is made from the id, since chance is not repeatable in a replay."""
    spread = 1 + zlib.crc32(instance_id.encode()) % 1000 / 1000
    return RetryPolicy(
        first_retry_interval=timedelta(seconds=retries.first_seconds * spread),
        max_number_of_attempts=retries.attempts,
        backoff_coefficient=2.0,
        max_retry_interval=timedelta(seconds=retries.max_seconds),
    )
