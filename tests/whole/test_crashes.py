"""Killed in any stage, worker or sidecar: the task goes on where it was, and the refund is posted once."""

from __future__ import annotations

import pytest

from tests.live import Live, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

STAGES = ("classify", "retrieve_account", "draft_refund", "hold_refund", "notify_customer", "close_case")
# Holds a task inside a stage: which part of the outside world is slow, and what the stage before it is.
HELD_BY = {
    "classify": "model",
    "retrieve_account": "accounts",
    "draft_refund": "model",
    "hold_refund": "refunds",
    "notify_customer": "notifications",
    "close_case": "refunds",
}
# What the same target is asked by the task before: the model sorts first; the refund is held and committed first.
ASKED_BEFORE = {"draft_refund": 1, "close_case": 2}


def hold_in(live: Live, stage: str, ticket_id: str, number: int) -> str:
    """Sends a ticket and returns once its task hangs inside `stage`."""
    skip = {"skip": ASKED_BEFORE[stage], "containing": f"LD-{number}"} if stage in ASKED_BEFORE else {}
    live.fault(HELD_BY[stage], "slow", seconds=2.0, count=1, **skip)
    task_id = live.submit(tickets.refund(ticket_id, number))
    until(lambda: live.fired(HELD_BY[stage]), f"the task is inside {stage}")
    return task_id


@pytest.mark.parametrize("victim", ["worker", "daprd"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_task_survives_a_kill_in_each_stage(live: Live, stage: str, victim: str) -> None:
    ticket_id = f"kill-{victim}-{stage.replace('_', '-')}"
    number = 10_000 + 10 * STAGES.index(stage) + ("worker", "daprd").index(victim)
    calls_before = len(live.bill())

    task_id = hold_in(live, stage, ticket_id, number)
    live.stack.kill(victim)
    live.stack.start(victim)
    view = live.wait(task_id, "completed")

    assert view["result"]["outcome"] == "refunded"
    assert view["result"]["refund"] == {"order_id": f"LD-{number}", "amount": "20.00", "currency": "EUR"}
    assert live.completed_steps(task_id) == tickets.REFUND_STEPS, "no completed step was executed again"
    for book in ("refunds", "notifications", "cases"):
        assert [row["ticket_id"] for row in live.rows(book)].count(ticket_id) == 1, f"one entry in {book}"
    repeated = len(live.bill()) - calls_before - 3
    assert repeated in ((0, 1) if HELD_BY[stage] == "model" else (0,)), "only the call in flight may be paid again"


def test_without_its_sidecar_a_worker_is_alive_and_not_ready_until_it_is_back(live: Live) -> None:
    def probed(path: str) -> int:
        return live.outside.get(f"{live.stack.web_url}{path}").status_code

    until(lambda: probed("/readyz") == 200, "the worker is ready")
    live.stack.kill("daprd")
    until(lambda: probed("/readyz") == 503, "the probe to notice that the stream is gone")
    assert probed("/livez") == 200
    live.stack.start("daprd")
    until(lambda: probed("/readyz") == 200, "the worker to connect again")


def test_a_worker_that_is_told_to_stop_delivers_what_runs(live: Live) -> None:
    calls_before = len(live.bill())
    task_id = hold_in(live, "classify", "stop-gently", 10_090)
    live.stack.stop("worker")
    live.stack.start("worker")
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"
    assert len(live.bill()) == calls_before + 3, "the call in flight was paid once: its answer was delivered first"
    assert live.completed_steps(task_id) == tickets.REFUND_STEPS
