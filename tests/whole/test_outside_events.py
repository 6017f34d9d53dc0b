"""What people and programs may send past the agent, or twice: no task fails of it, and no worker stands still."""

from __future__ import annotations

import pytest

from tests.live import Live
from tests.whole import tickets

pytestmark = pytest.mark.runtime

JUNK = [
    "",
    "null",
    "no json",
    "{",
    "[" * 50_000,
    "0",
    "[]",
    '{"verdict": "approve"}',
    '{"verdict": "reject", "by": "',
    '{"verdict": "approve", "by": "nobody; of ours"}',
    '{"verdict": "approve", "by": "kim", "refund": {"order_id": "../x", "amount": "1e9", "currency": "EUR"}}',
]


def test_a_task_that_is_paused_twice_and_resumed_goes_on_and_so_does_the_worker(live: Live) -> None:
    task_id = live.submit(tickets.greedy("pause-twice", 33_001))
    live.wait(task_id, "waiting")
    assert live.web.post(f"/tasks/{task_id}/pause").status_code == 200
    live.wait(task_id, "paused")
    again = live.web.post(f"/tasks/{task_id}/pause")
    assert again.status_code == 409
    assert "is paused already" in again.json()["detail"]
    assert live.tell_sidecar(task_id, "pause") == 202  # two that pause at the same moment get through the agent too
    assert live.tell_sidecar(task_id, "pause") == 202
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    live.wait(task_id, "waiting")
    assert live.tell_sidecar(task_id, "resume") == 202
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 409
    assert live.web.post(f"/tasks/{task_id}/approve").status_code == 200
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"


def test_events_that_are_none_change_nothing(live: Live) -> None:
    task_id = live.submit(tickets.greedy("junk-events", 33_002))
    asked = live.wait(task_id, "waiting")
    for junk in JUNK:
        for event in ("decision", "DECISION", "resume", "unheard-of"):
            assert live.tell_sidecar(task_id, f"raiseEvent/{event}", junk) == 202, (event, junk[:30])
    after = live.submit(tickets.refund("after-junk", 33_003))
    assert live.wait(after, "completed")["result"]["outcome"] == "refunded"
    view = live.wait(task_id, "waiting")
    assert view["waiting_for"] == asked["waiting_for"]
    assert live.web.post(f"/tasks/{task_id}/reject").status_code == 200
    assert live.wait(task_id, "completed")["result"]["outcome"] == "rejected"


def test_a_paused_task_can_be_terminated(live: Live) -> None:
    task_id = live.submit(tickets.greedy("end-while-paused", 33_004))
    live.wait(task_id, "waiting")
    assert live.web.post(f"/tasks/{task_id}/pause").status_code == 200
    live.wait(task_id, "paused")
    assert live.tell_sidecar(task_id, "raiseEvent/decision", '{"verdict": "reject", "by": "kim"}') == 202
    assert live.web.post(f"/tasks/{task_id}/terminate", json={"reason": "twice"}).status_code == 200
    live.wait(task_id, "terminated")
