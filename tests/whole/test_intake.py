"""Intake on the real runtime: the same ticket is the same task, before, during and after its work."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live import Live, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def test_the_same_ticket_after_completion_is_the_same_task_with_its_history(live: Live) -> None:
    ticket = tickets.refund("again", 40_000)
    task_id = live.submit(ticket)
    live.wait(task_id, "completed")
    before = [event.SerializeToString() for event in live.history(task_id)]
    response = live.web.post("/tasks", json=ticket)
    assert response.status_code == 200
    assert response.json()["status"] == "completed"
    assert [event.SerializeToString() for event in live.history(task_id)] == before


def test_another_body_under_a_used_id_is_a_conflict(live: Live) -> None:
    live.submit(tickets.refund("taken", 40_001))
    response = live.web.post("/tasks", json=tickets.refund("taken", 40_002))
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert "bench:taken" in response.json()["detail"]


def test_a_crowd_with_the_same_ticket_starts_one_task(live: Live) -> None:
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: live.web.post("/tasks", json=tickets.refund("crowd", 40_003)), range(16)))
    assert sorted(response.status_code for response in responses) == [200] * 15 + [201]
    live.wait("bench:crowd", "completed")
    assert [row["ticket_id"] for row in live.rows("refunds")].count("crowd") == 1


def test_a_paused_task_stops_between_two_steps_and_goes_on(live: Live) -> None:
    live.fault("accounts", "timeout")  # nothing goes on before `heal`, however late the pause comes
    task_id = live.submit(tickets.refund("pause", 40_004))
    assert live.web.post(f"/tasks/{task_id}/pause").json()["status"] == "paused"
    live.heal()
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"


def reach(moment: float) -> None:
    """Returns at a moment of the monotonic clock."""
    until(lambda: time.monotonic() >= moment, "the moment to pause")


def test_tasks_that_are_paused_at_any_moment_go_on(live: Live) -> None:
    chance = random.Random(7)
    for number in range(24):
        task_id = live.submit(tickets.refund(f"pause-{number}", 41_000 + number))
        reach(time.monotonic() + chance.random() * 0.12)
        paused = live.web.post(f"/tasks/{task_id}/pause")
        assert paused.status_code in (200, 409), "409: it was quicker than the pause"
        if paused.status_code == 200 and live.view(task_id)["status"] == "paused":
            live.web.post(f"/tasks/{task_id}/resume")
    for number in range(24):
        assert live.wait(f"bench:pause-{number}", "completed", "failed")["status"] == "completed"


def test_a_terminated_task_posts_nothing(live: Live) -> None:
    task_id = live.submit(tickets.greedy("stop", 40_005))
    live.wait(task_id, "waiting")
    assert live.web.post(f"/tasks/{task_id}/terminate", json={"reason": "test"}).status_code == 200
    live.wait(task_id, "terminated")
    assert live.web.post(f"/tasks/{task_id}/approve").status_code == 409
    assert "stop" not in [row["ticket_id"] for row in live.rows("refunds")]


def test_a_person_cannot_approve_more_than_the_books_hold(live: Live) -> None:
    task_id = live.submit(tickets.greedy("too-much", 40_006))
    view = live.wait(task_id, "waiting")
    assert view["waiting_for"] == "above_refundable"
    assert view["proposed_refund"] == {"order_id": "LD-40006", "amount": "20.00", "currency": "EUR"}
    greedy = {"refund": {"order_id": "LD-40006", "amount": "20.01", "currency": "EUR"}}
    refused = live.web.post(f"/tasks/{task_id}/approve", json=greedy)
    assert (refused.status_code, "20.00" in refused.text) == (422, True)
    # The task asks again by then, or does so in a moment.
    until(lambda: live.web.post(f"/tasks/{task_id}/approve").status_code == 200, "the next decision is taken")
    assert live.wait(task_id, "completed")["result"]["refund"]["amount"] == "20.00"


def test_history_holds_no_text_of_the_customer(live: Live) -> None:
    ticket = tickets.refund("private", 40_007)
    ticket["text"] += " Write to jane.private@example.com, my card is 4111 1111 1111 1111."
    task_id = live.submit(ticket)
    live.wait(task_id, "completed")
    history = b"".join(event.SerializeToString() for event in live.history(task_id))
    logs = b"".join(file.read_bytes() for file in (live.stack.state / "logs").iterdir())
    for secret in (b"jane.private", b"4111 1111", b"arrived broken"):
        assert secret not in history
        assert secret not in logs
