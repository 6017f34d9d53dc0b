"""What every step of a task shares: slow retries, parking instead of failing, and the status that readers see.

Deterministic, like all workflow code: its only sources are the workflow's input and its history.
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
# No code waits for this event; an event of any name makes Dapr run a turn (`WorkflowClient.wake`).
WAKE = "wake"
RESUMED = {"resume": True}
ANSWERED_BEFORE = "answered_before"  # why a decision came too late
_REASON_CHARACTERS = 300
# A task's status holds this many of its last decisions; the ledger has them all.
_SHOWN_DECISIONS = 20


class TaskInput(Frozen):
    """The workflow's input: whose ticket it is, and the rules that apply to it. It holds no text. `again` says that an
    earlier run may have worked on the ticket; its effects are then looked up before anything is drafted."""

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
        self._retry_policy = retry_policy(rules.retries, context.instance_id)
        self._questions = 0
        self._settled: tuple[SettledDecision, ...] = ()

    @property
    def decisions(self) -> tuple[SettledDecision, ...]:
        """The outcomes of the last decisions, oldest first."""
        return self._settled[-_SHOWN_DECISIONS:]

    def patched(self, change: str) -> bool:
        """Whether a named change of the workflow's code applies to this task. False only for a task that passed this
        place before the change existed. Dapr notes the answer in the history, and keeps the task from workers that do
        not know the change."""
        return bool(self._context.is_patched(change))

    def run(self, name: str, question: Frozen, output: type[Output]) -> Step[Output]:
        """Runs the activity `name` as one step: retried slowly, then parked."""
        (result,) = yield from self.run_all([(name, question, output)])
        return result

    def run_all(self, questions: list[tuple[str, Frozen, type[Output]]]) -> Generator[Any, Any, list[Output]]:
        """Runs several steps in parallel, each (activity, input, type of output). When one fails for good, the task is
        parked, and `task resume` runs all of them again; likewise after the pause of one that was deferred."""
        while True:
            calls = [
                self._context.call_activity(name, input=question, retry_policy=self._retry_policy)
                for name, question, _ in questions
            ]
            try:
                results = yield when_all(calls)
                if pause := _deferred(results):
                    yield self._context.create_timer(timedelta(seconds=pause))
                    continue
                return [
                    output.model_validate(result) for result, (_, _, output) in zip(results, questions, strict=True)
                ]
            except TaskFailedError as failure:
                yield from self._park(questions[0][0], failure)

    def decision(self, progress: Progress, figures: Figures, since: datetime) -> Generator[Any, Any, Decision | None]:
        """Asks a person and waits for the decision, without holding a thread or memory. None when the time limit, which
        runs from `since`, is over. An answer to another question is settled as too late; an event that is no decision
        is ignored."""
        self._questions += 1
        until = since + timedelta(hours=self._rules.approval.time_limit_hours)
        question = Question(number=self._questions, asked_at=_iso(since), expires_at=_iso(until), **dict(figures))
        progress = progress.model_copy(update={"question": question})
        while (left := until - self.now()) > timedelta(0):
            self.show(progress)
            try:
                answer = yield self._context.wait_for_external_event(DECISION, timeout=left)
            except TimeoutError:
                break
            decision = _decision(answer)
            if decision is not None and decision.question in (None, self._questions):
                self.show(None)
                return decision
            if decision is not None:
                self.settle(decision, DecisionState.TOO_LATE, ANSWERED_BEFORE, reason=progress.reason)
            else:
                self._ignore(DECISION)
        self.show(None)
        return None

    def settle(self, decision: Decision, state: DecisionState, code: str = "", **figures: Any) -> None:
        """Notes the outcome of a decision. `figures` are further fields of `SettledDecision`."""
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
        """Changes the last decision from accepted to refused: the refund system did not commit its refund."""
        if self._settled and self._settled[-1].state is DecisionState.ACCEPTED:
            *others, last = self._settled
            refused = last.model_copy(update={"state": DecisionState.REFUSED, "code": code, "at": _iso(self.now())})
            self._settled = (*others, refused)

    def show(self, progress: Progress | None) -> None:
        """Sets the status that readers see: what the task waits for, None when it is running."""
        if progress is None and self._settled:
            progress = Progress(status=TaskStatus.RUNNING)
        shown = progress and progress.model_copy(update={"decisions": self.decisions})
        self._context.set_custom_status(shown.model_dump_json(exclude_defaults=True) if shown else "")

    def now(self) -> datetime:
        """The time of this turn in UTC, from the history."""
        now: datetime = self._context.current_utc_datetime
        return now.replace(tzinfo=UTC)

    def _park(self, name: str, failure: TaskFailedError) -> Generator[Any, Any, None]:
        """Waits for `task resume`."""
        reason = f"{name}: {split_code(failure.details.message)[1]}"[:_REASON_CHARACTERS]
        self.show(Progress(status=TaskStatus.PARKED, reason=reason))
        while (yield self._context.wait_for_external_event(RESUME)) != RESUMED:
            self._ignore(RESUME)
        self.show(None)

    def _ignore(self, event: str) -> None:
        """Logs an event with a body of another form once, without the body."""
        if not self._context.is_replaying:
            log.warning("task %s: an event %r of an unknown form is ignored", self._context.instance_id, event)


def _decision(answer: object) -> Decision | None:
    """The event's body as a decision; None when it is none, since events can be raised by hand."""
    try:
        return Decision.model_validate(answer)
    except ValidationError:
        return None


def _deferred(results: list[Any]) -> float:
    """For how many seconds a step asks the task to pause; 0 when none does."""
    asked = (result.get("deferred_seconds") for result in results if isinstance(result, dict))
    return max((float(seconds) for seconds in asked if seconds is not None), default=0.0)


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def retry_policy(retries: Retries, instance_id: str) -> RetryPolicy:
    """The retry policy of every step. The first pause is between one and two times `first_seconds` and differs by task,
    so that tasks that failed together do not retry together. It is computed from the id, since a replay must find the
    same pause."""
    spread = 1 + zlib.crc32(instance_id.encode()) % 1000 / 1000
    return RetryPolicy(
        first_retry_interval=timedelta(seconds=retries.first_seconds * spread),
        max_number_of_attempts=retries.attempts,
        backoff_coefficient=2.0,
        max_retry_interval=timedelta(seconds=retries.max_seconds),
    )
