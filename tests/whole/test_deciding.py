"""People decide, against the real runtime: each answer says what really happened, and each decision leaves a trail."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.domain.models import TaskStatus
from tests.live import Live, recorded, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def waiting(live: Live, number: int) -> str:
    """A task that waits for a person: 20.00 EUR are left on its order."""
    task_id = live.submit(tickets.greedy(f"decide-{uuid.uuid4().hex[:8]}", number))
    live.wait(task_id, "waiting")
    return task_id


def decide(live: Live, task_id: str, verdict: str, **body: Any) -> httpx.Response:
    """What the API answers."""
    return live.web.post(f"/tasks/{task_id}/{verdict}", json=body)


def other(number: int, amount: str, currency: str = "EUR") -> dict[str, str]:
    """A refund of somebody's own."""
    return {"order_id": f"LD-{number}", "amount": amount, "currency": currency}


def test_a_refusal_names_the_reason_and_the_limit_and_all_of_it_stands_in_the_record(live: Live) -> None:
    task_id = waiting(live, 46_001)
    asked = live.view(task_id)
    question, reason = asked["question"], asked["waiting_for"]
    assert (question["number"], question["order"]["refundable"]) == (1, "20.00")
    for refund, words, code in (
        (
            other(46_001, "9999.00"),
            "9,999.00 EUR is more than order LD-46001 has left: 20.00 EUR at most",
            "above_refundable",
        ),
        (other(46_001, "9.00", "CHF"), "was paid in EUR, not in CHF: 20.00 EUR at most", "currency_differs"),
        (other(99, "9.00") | {"order_id": "XX-1"}, "the books know no order XX-1", "order_unknown"),
    ):
        answer = decide(live, task_id, "approve", refund=refund)
        assert answer.status_code == 422, answer.text
        assert words in answer.json()["detail"]
        assert (answer.json()["code"], answer.json()["reason"]) == ("decision_refused", code)
        assert live.wait(task_id, "waiting")["waiting_for"] == reason, "it waits as before"
    answer = decide(live, task_id, "approve", refund=other(46_001, "7.50"), note="a goodwill sum, ann@example.org")
    assert answer.status_code == 200, answer.text
    assert live.wait(task_id, "completed")["result"]["refund"]["amount"] == "7.50"
    assert decide(live, task_id, "reject").status_code == 409
    with live.records() as records:
        record = recorded(records, task_id, TaskStatus.COMPLETED)
    states = [(each.state.value, each.code) for each in record.decisions]
    assert states == [
        ("refused", "above_refundable"),
        ("refused", "currency_differs"),
        ("refused", "order_unknown"),
        ("accepted", ""),
        ("refused", "not_waiting"),
    ]
    assert record.decisions[3].note == "a goodwill sum, [e-mail]"
    history = "".join(str(event) for event in live.history(task_id))
    assert "goodwill" not in history, "no note is in the history"


def test_of_many_who_decide_at_once_one_is_accepted(live: Live) -> None:
    task_id = waiting(live, 46_002)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(decide, live, task_id, "approve", refund=other(46_002, f"{n}.00")) for n in range(1, 7)]
        statuses = sorted(each.result().status_code for each in asked)
    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 409}
    done = live.wait(task_id, "completed")
    accepted = [each for each in done["decisions"] if each["state"] == "accepted"]
    assert [each["refund"] for each in accepted] == [done["result"]["refund"]]
    assert len(done["decisions"]) == 6


def test_a_decision_for_another_question_is_left_aside(live: Live) -> None:
    task_id = waiting(live, 46_003)
    assert decide(live, task_id, "approve", refund=other(46_003, "9999.00")).status_code == 422
    late = {"verdict": "approve", "by": "late", "question": 1, "decision_id": "late-1", "refund": None}
    for event in (late, "yes", {"verdict": "pay"}):
        assert live.tell_sidecar(task_id, "raiseEvent/decision", json.dumps(event)) == 202

    def left_aside() -> bool:
        view = live.view(task_id)
        return bool(view["status"] == "waiting" and view["question"]["number"] == 2)

    until(left_aside, "it still waits for its second question")
    assert decide(live, task_id, "reject", note="no").status_code == 200
    done = live.wait(task_id, "completed")
    assert done["result"]["outcome"] == "rejected"
    with live.records() as records:
        record = recorded(records, task_id, TaskStatus.COMPLETED)
    assert {(each.by, each.state.value) for each in record.decisions if each.by == "late"} == {("late", "too_late")}
