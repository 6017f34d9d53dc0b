"""What every step of a task shares: slow retries, parking instead of failing, and saying what it waits for.

Deterministic, as all workflow code: its only sources are the workflow's input and its history.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from dapr.ext.workflow import DaprWorkflowContext, RetryPolicy, TaskFailedError, when_all
from pydantic import ValidationError

from app.config.policy import Retries, Rules
from app.domain.errors import split_code
from app.domain.models import (
    Decision,
    DecisionState,
    Figures,
    Frozen,
    Progress,
    Question,
    Reference,
    SettledDecision,
    TaskStatus,
    TenantId,
    TicketId,
    task_id,
)

log = logging.getLogger(__name__)

Output = TypeVar("Output", bound=Frozen)
Step = Generator[Any, Any, Output]

DECISION = "decision"
RESUME = "resume"
# Nobody waits for this one: an event of any name has Dapr run a turn (`Runs.wake`).
WAKE = "wake"
RESUMED = {"resume": True}
ANSWERED_BEFORE = "answered_before"  # why a decision came too late
_REASON_CHARACTERS = 300
# How many decisions a task tells of; the ledger has them all.
_TOLD_DECISIONS = 20


class TaskInput(Frozen):
    """What a task starts with: whose ticket, and the rules that hold for it. No text. `again` says that an earlier run
    may have worked at the ticket, whose effects are then asked for before anything is drafted."""

    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference | None
    rules: Rules
    again: bool = False

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
        self._questions = 0
        self._settled: tuple[SettledDecision, ...] = ()

    @property
    def decisions(self) -> tuple[SettledDecision, ...]:
        """What became of the last decisions that the task has taken."""
        return self._settled[-_TOLD_DECISIONS:]

    def patched(self, change: str) -> bool:
        """Whether a change of this name to the workflow's code holds for the task: True but for a task that has passed
        the place already. Dapr notes it in the history, and keeps the task from workers that do not know the change."""
        return bool(self._context.is_patched(change))

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

    def decision(self, asked: Progress, known: Figures, since: datetime) -> Generator[Any, Any, Decision | None]:
        """Asks a person and waits durably: no thread, no memory. None when the time limit is over, which runs from
        `since`. What answers another question, or is no decision at all, is left aside."""
        self._questions += 1
        until = since + timedelta(hours=self._rules.approval.time_limit_hours)
        question = Question(number=self._questions, asked_at=_iso(since), expires_at=_iso(until), **dict(known))
        asked = asked.model_copy(update={"question": question})
        while (left := until - self.now()) > timedelta(0):
            self.show(asked)
            try:
                answer = yield self._context.wait_for_external_event(DECISION, timeout=left)
            except TimeoutError:
                break
            decision = _decision(answer)
            if decision is not None and decision.question in (None, self._questions):
                self.show(None)
                return decision
            if decision is not None:
                self.settle(decision, DecisionState.TOO_LATE, ANSWERED_BEFORE, reason=asked.reason)
            else:
                self._ignore(DECISION)
        self.show(None)
        return None

    def settle(self, decision: Decision, state: DecisionState, code: str = "", **figures: Any) -> None:
        """Notes what became of a decision. `figures` are further fields of `SettledDecision`."""
        settled = SettledDecision(
            decision_id=decision.decision_id,
            question=decision.question,
            verdict=decision.verdict,
            by=decision.by,
            at=_iso(self.now()),
            state=state,
            code=code,
            **{"refund": decision.refund} | figures,
        )
        self._settled += (settled,)

    def overturn(self, code: str) -> None:
        """Notes that the books have refused what a person's decision, accepted before, wanted posted."""
        if self._settled and self._settled[-1].state is DecisionState.ACCEPTED:
            *others, last = self._settled
            refused = last.model_copy(update={"state": DecisionState.REFUSED, "code": code, "at": _iso(self.now())})
            self._settled = (*others, refused)

    def show(self, progress: Progress | None) -> None:
        """Says what the task waits for; None that it goes on."""
        if progress is None and self._settled:
            progress = Progress(status=TaskStatus.RUNNING)
        told = progress and progress.model_copy(update={"decisions": self.decisions})
        self._context.set_custom_status(told.model_dump_json(exclude_defaults=True) if told else "")

    def now(self) -> datetime:
        """The time of this turn."""
        now: datetime = self._context.current_utc_datetime
        return now.replace(tzinfo=UTC)

    def _parked(self, name: str, failure: TaskFailedError) -> Generator[Any, Any, None]:
        reason = f"{name}: {split_code(failure.details.message)[1]}"[:_REASON_CHARACTERS]
        self.show(Progress(status=TaskStatus.PARKED, reason=reason))
        while (yield self._context.wait_for_external_event(RESUME)) != RESUMED:
            self._ignore(RESUME)
        self.show(None)

    def _ignore(self, event: str) -> None:
        """Says once that an event was none of ours; not what it held."""
        if not self._context.is_replaying:
            log.warning("task %s: an event %r that is none of ours is ignored", self._context.instance_id, event)


def _decision(answer: object) -> Decision | None:
    """None for what is no decision: anybody may raise an event by hand."""
    try:
        return Decision.model_validate(answer)
    except ValidationError:
        return None


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


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
