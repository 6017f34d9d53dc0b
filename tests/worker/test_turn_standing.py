"""What a turn says about its task: as the worker is asked and answers, with Dapr's own messages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from dapr.ext.workflow._durabletask.internal import protos

from app.domain.models import Category, Outcome, Progress, Refund, TaskResult, TaskStatus
from app.domain.standing import Standing
from app.worker.turns import standing_after

AT = datetime(2026, 11, 22, 12, 0, 1, 250_000, tzinfo=UTC)
REFUND = Refund(order_id="AC-1", amount=Decimal("49.90"), currency="EUR")
ASKS = Progress(status=TaskStatus.WAITING, reason="above_limit", category=Category.DAMAGED, refund=REFUND)
WAITING = Standing(
    status=TaskStatus.WAITING, at=AT, category=Category.DAMAGED, waiting_for="above_limit", proposed_refund=REFUND
)


def event(kind: str, at: datetime = AT) -> Any:
    found = protos.HistoryEvent(eventId=-1)
    found.timestamp.FromDatetime(at)
    getattr(found, kind).SetInParent()
    return found


def turn(*new: str, past: tuple[str, ...] = ()) -> Any:
    """A turn as daprd hands it out: its start, then what has arrived."""
    return protos.WorkflowRequest(
        instanceId="acme:T-1",
        pastEvents=[event(kind) for kind in past],
        newEvents=[event("workflowStarted"), *(event(kind, datetime(2026, 1, 1, tzinfo=UTC)) for kind in new)],
    )


def answer(custom_status: str | None = None, complete: Any = None) -> Any:
    """What the SDK gives back."""
    response = protos.WorkflowResponse(instanceId="acme:T-1")
    if custom_status is not None:
        response.customStatus.value = custom_status
    if complete is not None:
        response.actions.append(protos.WorkflowAction(completeWorkflow=complete))
    return response


def completed(status: int, result: str | None = None, failure: str | None = None) -> Any:
    action = protos.CompleteWorkflowAction(workflowStatus=status)
    if result is not None:
        action.result.value = result
    if failure is not None:
        action.failureDetails.errorMessage = failure
    return answer(complete=action)


def test_a_task_that_runs_and_never_rested_says_nothing() -> None:
    assert standing_after(turn("taskCompleted"), answer()) is None


def test_a_task_that_asks_a_person_waits() -> None:
    assert standing_after(turn("taskCompleted"), answer(ASKS.model_dump_json())) == WAITING


def test_a_task_that_goes_on_runs() -> None:
    assert standing_after(turn("eventRaised"), answer("")) == Standing(status=TaskStatus.RUNNING, at=AT)


def test_a_pause_counts_until_it_is_over_whatever_it_waits_for() -> None:
    paused = WAITING.model_copy(update={"status": TaskStatus.PAUSED})
    asks = answer(ASKS.model_dump_json())
    assert standing_after(turn("executionSuspended"), asks) == paused
    assert standing_after(turn("eventRaised", past=("executionSuspended",)), asks) == paused
    assert standing_after(turn("executionResumed", past=("executionSuspended",)), asks) == WAITING


def test_a_pause_of_a_task_that_says_nothing_of_itself_counts_as_well() -> None:
    assert standing_after(turn("executionSuspended"), answer()) == Standing(status=TaskStatus.PAUSED, at=AT)
    resumed = turn("executionResumed", past=("executionSuspended",))
    assert standing_after(resumed, answer()) == Standing(status=TaskStatus.RUNNING, at=AT)


def test_a_task_that_has_ended_says_how() -> None:
    result = TaskResult(outcome=Outcome.REFUNDED, category=Category.DAMAGED, refund=REFUND, refund_id="R-1")
    done = standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_COMPLETED, result.model_dump_json()))
    assert done == Standing(status=TaskStatus.COMPLETED, at=AT, category=Category.DAMAGED, result=result)
    failed = standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_FAILED, failure="non-deterministic"))
    assert failed == Standing(status=TaskStatus.FAILED, at=AT, error="non-deterministic")
    ended = standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_TERMINATED, '{"reason":"by hand"}'))
    assert ended == Standing(status=TaskStatus.TERMINATED, at=AT, error="by hand")


def test_another_workflows_words_are_none_of_ours() -> None:
    assert standing_after(turn(), answer("half way")) == Standing(status=TaskStatus.RUNNING, at=AT)
    other = standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_COMPLETED, "[1, 2]"))
    assert other == Standing(status=TaskStatus.COMPLETED, at=AT)
    assert standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)) is None
