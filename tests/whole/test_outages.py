"""The outside world is down and comes back: tasks are delayed, none fails, and an open breaker costs no request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import Live, make_stack, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

MODEL_FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "status", "status": 429},
    "500": {"kind": "status", "status": 500},
    "time-out": {"kind": "timeout"},
    "cut connection": {"kind": "cut"},
    "malformed JSON": {"kind": "malformed"},
}
SYSTEMS = ("accounts", "orders", "policies", "refunds", "notifications", "cases")
# The policies are not asked in the name of a ticket.
OF_ONE_TICKET = (tuple(system for system in SYSTEMS if system != "policies"), ("policies",))


def send(live: Live, name: str, first: int, count: int) -> list[str]:
    """Sends some clear refunds and returns their tasks."""
    label = name.replace(" ", "-")
    return [live.submit(tickets.refund(f"{label}-{number}", first + number)) for number in range(count)]


def failures(live: Live, task_id: str) -> list[str]:
    """What the failed attempts of a task said, from Dapr's history."""
    events = live.history(task_id)
    return [event.taskFailed.failureDetails.errorMessage for event in events if event.HasField("taskFailed")]


@pytest.mark.parametrize("name", MODEL_FAULTS)
def test_all_tasks_finish_once_the_model_is_healthy_again(live: Live, name: str) -> None:
    live.fault("model", **MODEL_FAULTS[name])
    task_ids = send(live, name, 20_000 + 100 * list(MODEL_FAULTS).index(name), 5)
    until(lambda: all(failures(live, task_id) for task_id in task_ids), "every task has met the fault", 90)
    live.heal()
    for view in live.wait_all(task_ids, "completed"):
        assert view["result"]["outcome"] == "refunded"


def test_nonsense_gets_one_corrective_turn(live: Live) -> None:
    live.fault("model", "nonsense", count=1)
    task_id = live.submit(tickets.refund("nonsense-once", 21_000))
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"
    assert live.completed_steps(task_id)["classify"] == 2


def test_nonsense_without_end_goes_to_a_person(live: Live) -> None:
    live.fault("model", "nonsense")
    task_id = live.submit(tickets.refund("nonsense-ever", 21_001))
    view = live.wait(task_id, "waiting")
    assert view["waiting_for"] == "classification_unusable"
    assert live.completed_steps(task_id)["classify"] == 2
    live.heal()
    assert live.web.post(f"/tasks/{task_id}/reject").status_code == 200
    assert live.wait(task_id, "completed")["result"]["outcome"] == "rejected"


@pytest.mark.parametrize("systems", OF_ONE_TICKET, ids=" ".join)
def test_a_tool_that_is_down_delays_the_task_and_costs_no_model_call(live: Live, systems: tuple[str, ...]) -> None:
    """Each system is down for one ticket."""
    down = {system: 22_000 + SYSTEMS.index(system) for system in systems}
    for system, number in down.items():
        live.fault(system, "status", status=503, containing=f"load-{number}" if len(down) > 1 else "")
    task_ids = [live.submit(tickets.refund(f"down-load-{number}", number)) for number in down.values()]
    until(lambda: all(failures(live, task_id) for task_id in task_ids), f"the tasks meet {systems}")
    calls = len(live.bill())
    until(lambda: all(len(failures(live, task_id)) >= 3 for task_id in task_ids), "they have tried again some times")
    assert len(live.bill()) == calls, "no model is asked to think about a tool that is down"
    assert all(live.fired(system) for system in systems)
    live.heal()
    for view in live.wait_all(task_ids, "completed"):
        assert view["result"]["outcome"] == "refunded"
    posted = [row["ticket_id"] for row in live.rows("refunds")]
    assert [posted.count(f"down-load-{number}") for number in down.values()] == [1] * len(down)


@pytest.fixture
def slow_to_forgive(tmp_path: Path) -> Iterator[Live]:
    """A product whose model breaker stays open for twenty seconds."""
    stack = make_stack(tmp_path)
    policies = stack.folder / "resiliency" / "llm.yaml"
    text = policies.read_text()
    assert text.count("timeout: 3s\n") == 1
    policies.write_text(text.replace("timeout: 3s\n", "timeout: 20s\n"))
    with stack:
        live = Live(stack)
        yield live
        live.close()


def test_with_the_breaker_open_the_provider_sees_no_request(slow_to_forgive: Live) -> None:
    live = slow_to_forgive
    live.fault("model", "status", status=500)
    task_ids = send(live, "breaker", 23_000, 10)

    def refused_by_the_breaker() -> list[int]:
        return [sum("breaker is open" in message for message in failures(live, task_id)) for task_id in task_ids]

    # A task asks one thing at a time: what each of them asked before has reached the provider by then.
    until(lambda: all(refused_by_the_breaker()), "the breaker is open to every task", 30)
    requests, refused = len(live.bill()), sum(refused_by_the_breaker())
    until(lambda: sum(refused_by_the_breaker()) >= refused + 20, "twenty more attempts have failed fast", 30)
    assert len(live.bill()) == requests
    live.heal()
    for view in live.wait_all(task_ids, "completed"):
        assert view["result"]["outcome"] == "refunded"


BREAKER_SECONDS = 3.0  # of a system's breaker, as tests/live.py shortens it
DOWN_PERIODS = 4


def pauses(live: Live, task_id: str) -> int:
    """How many durable timers a task has waited for before it tried a step again."""
    events = live.history(task_id)
    return sum(event.HasField("timerCreated") and event.timerCreated.HasField("activityRetry") for event in events)


def test_with_a_tools_breaker_open_tasks_wait_without_a_request_to_anybody_but_one_probe_a_period(live: Live) -> None:
    live.fault("accounts", "status", status=503)
    task_ids = send(live, "fail-fast", 25_000, 10)
    until(lambda: all(len(failures(live, task_id)) >= 2 for task_id in task_ids), "every task waits", 60)
    begun, asked, probed = time.monotonic(), len(live.bill()), live.fired("accounts")
    tried = sum(len(failures(live, task_id)) for task_id in task_ids)
    until(lambda: live.fired("accounts") >= probed + DOWN_PERIODS, "the breaker has let some probes through", 60)
    probes, periods = live.fired("accounts") - probed, (time.monotonic() - begun) / BREAKER_SECONDS
    attempts = sum(len(failures(live, task_id)) for task_id in task_ids) - tried
    print(f"\n{periods:.1f} periods of the breaker: {attempts} attempts of 10 tasks, {probes} requests, no model call")
    assert probes <= periods + 1, "one request a period"
    assert attempts >= 3 * probes, "nearly all attempts failed without a request"
    assert len(live.bill()) == asked, "no model is asked about a tool that is down"
    for task_id in task_ids:
        failed = len(failures(live, task_id))  # read first: both grow
        assert pauses(live, task_id) >= failed - 1, "each pause is a timer of the workflow"
    live.heal()
    for view in live.wait_all(task_ids, "completed"):
        assert view["result"]["outcome"] == "refunded"
    assert len(live.bill()) - asked == 2 * len(task_ids), "two turns of the draft each; the classification is kept"


def test_a_refused_key_parks_the_task_until_somebody_mends_it(live: Live) -> None:
    live.fault("model", "status", status=401)
    task_id = live.submit(tickets.refund("bad-key", 24_000))
    view = live.wait(task_id, "parked")
    assert "status 401" in view["waiting_for"]
    assert "components/llm.yaml" in view["waiting_for"]
    live.heal()
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"
