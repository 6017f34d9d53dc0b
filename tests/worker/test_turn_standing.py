"""The standing of a task after a turn, from Dapr's own request and response messages."""

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
    history_event = protos.HistoryEvent(eventId=-1)
    history_event.timestamp.FromDatetime(at)
    getattr(history_event, kind).SetInParent()
    return history_event


def turn(*new: str, past: tuple[str, ...] = ()) -> Any:
    """A turn as daprd hands it out: its start, then the events that have arrived."""
    return protos.WorkflowRequest(
        instanceId="acme:T-1",
        pastEvents=[event(kind) for kind in past],
        newEvents=[event("workflowStarted"), *(event(kind, datetime(2026, 1, 1, tzinfo=UTC)) for kind in new)],
    )


def answer(custom_status: str | None = None, complete: Any = None) -> Any:
    """The SDK's response."""
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


def test_a_running_task_without_a_change_has_no_standing() -> None:
    assert standing_after(turn("taskCompleted"), answer()) is None


def test_a_task_that_asks_a_person_waits() -> None:
    assert standing_after(turn("taskCompleted"), answer(ASKS.model_dump_json())) == WAITING


def test_a_task_that_continues_runs() -> None:
    assert standing_after(turn("eventRaised"), answer("")) == Standing(status=TaskStatus.RUNNING, at=AT)


def test_a_pause_counts_until_its_end_even_if_the_task_waits() -> None:
    paused = WAITING.model_copy(update={"status": TaskStatus.PAUSED})
    asks = answer(ASKS.model_dump_json())
    assert standing_after(turn("executionSuspended"), asks) == paused
    assert standing_after(turn("eventRaised", past=("executionSuspended",)), asks) == paused
    assert standing_after(turn("executionResumed", past=("executionSuspended",)), asks) == WAITING


def test_a_pause_of_a_task_without_a_status_counts_too() -> None:
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


def test_another_workflows_texts_are_ignored() -> None:
    assert standing_after(turn(), answer("half way")) == Standing(status=TaskStatus.RUNNING, at=AT)
    other = standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_COMPLETED, "[1, 2]"))
    assert other == Standing(status=TaskStatus.COMPLETED, at=AT)
    assert standing_after(turn(), completed(protos.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)) is None
