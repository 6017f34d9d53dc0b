"""Histories of the agent's tasks from the real runtime: attempts, causes of failures, and times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from app.dapr.history.causes import Cause, cause_of
from app.dapr.history.model import AttemptOutcome, RunStatus, WaitOutcome, WorkflowRun
from app.dapr.history.reader import HistoryReader
from app.dapr.history.times import TimePart, split
from tests.live import Live, daprd_of, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

ZERO = timedelta(0)


@pytest.fixture
def reader(live: Live) -> Iterator[HistoryReader]:
    """A reader of the agent's histories."""
    with HistoryReader(daprd_of(live.stack)) as history_reader:
        yield history_reader


def time_parts(run: WorkflowRun) -> dict[TimePart, timedelta]:
    """The time of each part of an ended run; checks that they add up."""
    assert run.started_at is not None
    assert run.ended_at is not None
    time = split(run, run.ended_at)
    assert time.total == run.ended_at - run.started_at
    assert min(time.parts.values()) >= ZERO
    return time.parts


def test_a_task_without_trouble(live: Live, reader: HistoryReader) -> None:
    task_id = live.submit(tickets.refund("history-plain", 50_000))
    view = live.wait(task_id, "completed")
    run = reader.read(task_id)
    assert (run.instance_id, run.name, run.status) == (task_id, "refund_ticket", RunStatus.COMPLETED)
    assert Counter(step.name for step in run.steps) == tickets.REFUND_STEPS
    assert all(len(step.attempts) == 1 and step.last.outcome is AttemptOutcome.COMPLETED for step in run.steps)
    assert len({step.execution_id for step in run.steps}) == len(run.steps)
    assert run.output is not None
    assert run.output.at("refund", "amount") == view["result"]["refund"]["amount"]
    uses = [step.last.result.at("use", "input_tokens") for step in run.steps if step.last.result]
    assert [use for use in uses if use] == [row["input_tokens"] for row in live.bill() if row["billed"]][-3:]
    assert (run.waits, run.pauses, run.children, run.timers, run.suspensions) == ((), (), (), (), ())
    assert (run.continued, run.rerun_of, run.parent, run.repeats) == (False, None, None, 0)
    parts = time_parts(run)
    assert parts[TimePart.ACTIVE] > ZERO
    assert parts[TimePart.WAITING] == parts[TimePart.BACK_OFF] == parts[TimePart.SUSPENDED] == ZERO
    status = reader.status(task_id)
    assert (status.status, status.name, status.created_at) == (run.status, run.name, run.started_at)
    assert status.updated_at == run.ended_at
    assert task_id in set(reader.instance_ids())


def test_a_system_that_is_down_and_heals(live: Live, reader: HistoryReader) -> None:
    live.fault("accounts", "status", status=503)
    task_id = live.submit(tickets.refund("history-heals", 50_001))
    until(lambda: len(reader.read(task_id).pauses) >= 2, "two pauses before a retry")
    before = reader.read(task_id)
    live.heal()
    live.wait(task_id, "completed")
    run = reader.read(task_id)
    account = next(step for step in run.steps if step.name == "retrieve_account")
    assert before.step(account.execution_id) is not None
    assert len(account.attempts) >= 3
    assert [attempt.number for attempt in account.attempts] == list(range(1, len(account.attempts) + 1))
    assert {attempt.outcome for attempt in account.attempts[:-1]} == {AttemptOutcome.FAILED}
    assert {cause_of(attempt) for attempt in account.attempts[:-1]} <= {Cause.TOOL_ERROR, Cause.BREAKER_OPEN}
    assert cause_of(account.attempts[0]) is Cause.TOOL_ERROR
    assert account.last.outcome is AttemptOutcome.COMPLETED
    assert [pause.of for pause in run.pauses] == [account.execution_id] * (len(account.attempts) - 1)
    for pause, failed, again in zip(run.pauses, account.attempts, account.attempts[1:], strict=False):
        assert failed.ended_at is not None
        assert pause.ended_at is not None
        assert failed.ended_at <= pause.started_at <= pause.due_at <= pause.ended_at <= again.scheduled_at
    assert Counter(step.name for step in run.steps) == tickets.REFUND_STEPS, "retries are attempts, not steps"
    assert time_parts(run)[TimePart.BACK_OFF] > ZERO


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [("status", 429, Cause.RATE_LIMIT), ("status", 500, Cause.PROVIDER_ERROR), ("timeout", 0, Cause.TIMEOUT)],
)
def test_a_model_that_is_down_says_why(live: Live, reader: HistoryReader, kind: str, status: int, cause: Cause) -> None:
    live.fault("model", kind, **({"status": status} if status else {}))
    task_id = live.submit(tickets.refund(f"history-{kind}-{status}", 50_010 + status))
    until(lambda: reader.read(task_id).pauses, "the model has failed the task")
    first = reader.read(task_id).steps[0].attempts[0]
    assert cause_of(first) in (cause, Cause.BREAKER_OPEN)
    live.heal()
    live.wait(task_id, "completed")
    causes = {cause_of(attempt) for step in reader.read(task_id).steps for attempt in step.attempts} - {None}
    assert causes <= {cause, Cause.BREAKER_OPEN}


def test_a_key_that_is_refused_parks_the_task(live: Live, reader: HistoryReader) -> None:
    live.fault("model", "status", status=401)
    task_id = live.submit(tickets.refund("history-key", 50_002))
    live.wait(task_id, "parked")
    run = reader.read(task_id)
    assert [cause_of(attempt) for attempt in run.steps[0].attempts] == [Cause.REFUSED]
    assert [(wait.name, wait.due_at, wait.outcome) for wait in run.waits] == [("resume", None, WaitOutcome.OPEN)]
    live.heal()
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    live.wait(task_id, "completed")
    run = reader.read(task_id)
    assert run.waits[0].outcome is WaitOutcome.ANSWERED
    assert run.ended_at is not None
    assert set(split(run, run.ended_at).waiting_for) == {"resume"}


def test_a_task_that_waits_for_a_person(live: Live, reader: HistoryReader) -> None:
    task_id = live.submit(tickets.greedy("history-waits", 50_003))
    live.wait(task_id, "waiting")
    run = reader.read(task_id)
    (wait,) = run.waits
    assert (wait.name, wait.outcome, wait.ended_at) == ("decision", WaitOutcome.OPEN, None)
    assert wait.due_at is not None
    assert timedelta(hours=71) < wait.due_at - wait.started_at <= timedelta(hours=72)
    now = datetime.now(UTC)
    assert split(run, now + timedelta(hours=1)).waiting_for["decision"] >= timedelta(hours=1)

    body = {"refund": {"order_id": "LD-50003", "amount": "20.00", "currency": "EUR"}}
    assert live.web.post(f"/tasks/{task_id}/approve", json=body).status_code == 200
    live.wait(task_id, "completed")
    run = reader.read(task_id)
    assert run.waits[0].outcome is WaitOutcome.ANSWERED
    assert run.waits[0].answer is not None
    assert run.waits[0].answer.at("verdict") == "approve"
    assert [event.wait for event in run.raised] == [run.waits[0].event_id]
    assert time_parts(run)[TimePart.WAITING] > ZERO


def test_a_task_that_is_paused_and_resumed(live: Live, reader: HistoryReader) -> None:
    task_id = live.submit(tickets.greedy("history-paused", 50_004))
    live.wait(task_id, "waiting")
    assert live.web.post(f"/tasks/{task_id}/pause").json()["status"] == "paused"
    paused = reader.read(task_id)
    assert (paused.status, paused.suspensions[0].ended_at) == (RunStatus.SUSPENDED, None)
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    live.wait(task_id, "waiting")
    assert live.web.post(f"/tasks/{task_id}/reject").status_code == 200
    live.wait(task_id, "completed")
    run = reader.read(task_id)
    assert run.suspensions[0].ended_at is not None
    parts = time_parts(run)
    assert parts[TimePart.SUSPENDED] > ZERO
    assert parts[TimePart.WAITING] > ZERO


def test_a_task_that_is_terminated(live: Live, reader: HistoryReader) -> None:
    task_id = live.submit(tickets.greedy("history-ends", 50_005))
    live.wait(task_id, "waiting")
    assert live.web.post(f"/tasks/{task_id}/terminate", json={"reason": "a test"}).status_code == 200
    live.wait(task_id, "terminated")
    run = reader.read(task_id)
    assert (run.status, run.waits[0].outcome) == (RunStatus.TERMINATED, WaitOutcome.ABANDONED)
    assert run.output is not None
    assert run.output.at("reason") == "a test"
    assert time_parts(run)[TimePart.WAITING] > ZERO


def test_a_worker_that_dies_in_a_step_leaves_no_trace_but_time(live: Live, reader: HistoryReader) -> None:
    live.fault("accounts", "slow", seconds=3.0, count=1)
    task_id = live.submit(tickets.refund("history-dies", 50_006))
    until(lambda: live.fired("accounts"), "the task is inside the step")
    live.stack.kill("worker")
    dead = datetime.now(UTC)
    live.stack.start("worker")
    live.wait(task_id, "completed")
    run = reader.read(task_id)
    account = next(step for step in run.steps if step.name == "retrieve_account")
    assert [attempt.outcome for attempt in account.attempts] == [AttemptOutcome.COMPLETED], (
        "Dapr writes no second attempt"
    )
    assert account.last.ended_at is not None
    assert account.last.scheduled_at < dead < account.last.ended_at
    assert time_parts(run)[TimePart.ACTIVE] > account.last.ended_at - dead
