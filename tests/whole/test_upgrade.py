"""Another version of the workflow's code takes over running tasks: patched, careless and taken back."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from app.domain.decision_texts import BROKEN
from tests.live import Live, make_stack, until
from tests.whole import tickets
from tests.whole.upgraded_worker import CHANGE, CODE

pytestmark = pytest.mark.runtime

PASSED = tickets.REFUND_STEPS
PASSED_BY_A_PERSON = PASSED + Counter(hold_refund=1)  # what the draft held, and what the person approved
ONE_STEP_MORE = Counter(retrieve_account=1)


class Upgraded:
    """A running product whose worker's code can be exchanged."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._number = 36_000

    def deploy(self, code: str) -> None:
        """Ends the worker as an upgrade does, and starts it with this code."""
        self.live.stack.stop("worker")
        (self.live.stack.state / CODE).write_text(code)
        self.live.stack.start("worker")

    def past_the_place(self) -> str:
        """A task whose letter is on its way: it has passed the place of the change, and its step does not end."""
        self._number += 10
        before = self.live.fired("notifications")
        self.live.fault("notifications", "status", status=503)
        task_id = self.live.submit(tickets.refund(f"past-{self._number}", self._number))
        until(lambda: self.live.fired("notifications") > before, f"{task_id} has passed the place")
        return task_id

    def waiting(self) -> str:
        """A task that waits for a person, before the place."""
        self._number += 10
        task_id = self.live.submit(tickets.greedy(f"waits-{self._number}", self._number))
        self.live.wait(task_id, "waiting")
        return task_id

    def approve(self, task_id: str) -> None:
        """Lets it go on."""
        refund = {"order_id": f"LD-{task_id.rsplit('-', 1)[1]}", "amount": "20.00", "currency": "EUR"}
        answer = self.live.web.post(f"/tasks/{task_id}/approve", json={"refund": refund})
        assert answer.status_code == 200, answer.text

    def ended(self, task_id: str, steps: Counter[str]) -> None:
        """It has ended with these steps, one refund and one letter."""
        assert self.live.wait(task_id, "completed")["result"]["outcome"] == "refunded"
        assert self.live.completed_steps(task_id) == steps
        ticket_id = task_id.partition(":")[2]
        for book in ("refunds", "notifications", "cases"):
            assert [row["ticket_id"] for row in self.live.rows(book)].count(ticket_id) == 1, f"one entry in {book}"


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """Started with the code as it is."""
    worker = [sys.executable, "-m", "tests.whole.upgraded_worker"]
    with make_stack(tmp_path_factory.mktemp("upgraded"), worker=worker) as stack:
        live = Live(stack)
        yield Upgraded(live)
        live.close()


def test_a_patched_change_holds_for_tasks_that_have_not_passed_its_place(upgraded: Upgraded) -> None:
    live = upgraded.live
    past, waiting = upgraded.past_the_place(), upgraded.waiting()
    upgraded.deploy("patched")
    live.heal()
    upgraded.approve(waiting)
    upgraded.ended(past, PASSED)
    upgraded.ended(waiting, PASSED_BY_A_PERSON + ONE_STEP_MORE)
    upgraded.ended(live.submit(tickets.refund("after-36990", 36_990)), PASSED + ONE_STEP_MORE)

    # Taken back while a task has passed the change: the old code leaves it alone, and the new one brings it to its end.
    past = upgraded.past_the_place()
    assert any(CHANGE in event.workflowStarted.version.patches for event in live.history(past))
    upgraded.deploy("old")
    live.heal()
    live.wait(past, "parked")
    upgraded.ended(live.submit(tickets.refund("beside-36980", 36_980)), PASSED)
    upgraded.deploy("patched")
    upgraded.ended(past, PASSED + ONE_STEP_MORE)
    upgraded.deploy("old")


def test_a_careless_change_parks_the_tasks_that_it_does_not_fit_until_it_is_taken_back(upgraded: Upgraded) -> None:
    live = upgraded.live
    past, waiting = upgraded.past_the_place(), upgraded.waiting()
    upgraded.deploy("careless")
    live.heal()
    upgraded.approve(waiting)
    upgraded.ended(waiting, PASSED_BY_A_PERSON + ONE_STEP_MORE)
    view = live.wait(past, "parked")
    assert view["waiting_for"].startswith(f"{BROKEN} does not fit what this task has done")

    upgraded.deploy("old")
    upgraded.ended(past, PASSED)
