"""The provider refuses requests as such: one request a task, no token, a reason that says what to mend, and no loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.errors import ModelRefused, with_code
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from tests.live import Live, until
from tests.whole import tickets
from tests.whole.test_outages import failures

pytestmark = pytest.mark.runtime

FIRST, LATER = 8, 32
MEMORY_SECONDS = 12.5  # of the model's breaker, as tests/live.py shortens it, and a little
# Status, and what the reason asks to be looked at.
REFUSALS = ((400, "takes such requests"), (404, "the model's name"))


def send_at_once(live: Live, name: str, first: int, count: int) -> list[str]:
    """Sends clear refunds side by side and returns their tasks."""
    wanted = [tickets.refund(f"{name}-{number}", first + number) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(live.submit, wanted))


def behind(live: Live, task_ids: Sequence[str]) -> list[str]:
    """What these tasks were told by an open breaker."""
    return [said for task_id in task_ids for said in failures(live, task_id) if "breaker is open" in said]


def until_the_breaker_opens(live: Live, name: str, first: int) -> list[str]:
    """Sends tasks into a fault until the breaker opens. It does not while it remembers an answer of a while ago."""
    until(lambda: _quiet_for(live, MEMORY_SECONDS), "the breaker has forgotten what was answered")
    task_ids: list[str] = []
    for wave in range(8):
        sent = send_at_once(live, f"{name}-{wave}", first + 10 * wave, FIRST)
        until(partial(_have_met_it, live, sent), "every task has met the fault", 60)
        task_ids += sent
        if any("circuit breaker" in said for task_id in sent for said in failures(live, task_id)):
            return task_ids
    raise AssertionError(f"{len(task_ids)} tasks, and the breaker is not open")


def _quiet_for(live: Live, seconds: float) -> bool:
    answered = [datetime.fromisoformat(row["at"]) for row in live.bill() if row["status"] == 200]
    return not answered or datetime.now(UTC) - max(answered) > timedelta(seconds=seconds)


def _have_met_it(live: Live, task_ids: Sequence[str]) -> bool:
    return all(failures(live, task_id) for task_id in task_ids)


def calls_of(live: Live, task_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The journal's rows of these tasks."""
    engine = database.connect(f"sqlite:///{live.stack.state / 'ledger.sqlite'}")
    try:
        with engine.connect() as connection:
            found = connection.execute(select(MODEL_CALLS).where(MODEL_CALLS.c.task_id.in_(task_ids))).mappings()
            return [dict(row) for row in found]
    finally:
        engine.dispose()


def refused(live: Live, task_ids: Sequence[str], status: int) -> Counter[str]:
    """How many requests of each task the provider refused, by the journal."""
    sign = with_code(ModelRefused.code, "model component llm: the provider refuses the request")
    told = [row for row in calls_of(live, task_ids) if str(row["error"]).startswith(f"{sign} with status {status}")]
    return Counter(row["task_id"] for row in told)


def statuses(live: Live, task_ids: Sequence[str]) -> dict[str, str]:
    """Where the tasks are."""
    return {task_id: live.view(task_id)["status"] for task_id in task_ids}


@pytest.mark.parametrize(("status", "look_at"), REFUSALS)
def test_a_refused_request_says_what_to_look_at(live: Live, status: int, look_at: str) -> None:
    live.fault("model", "status", status=status, count=1)
    task_ids = send_at_once(live, f"refused-{status}", 54_000 + status, 1)
    live.wait_all(task_ids, "parked")
    _say_what_to_mend(live, task_ids, status, look_at)
    assert refused(live, task_ids, status) == Counter(task_ids)
    finish(live, task_ids)


def test_a_refused_request_is_made_once_and_what_waits_goes_on_when_it_is_mended(live: Live) -> None:
    status = 401
    before = len(live.bill())
    live.fault("model", "status", status=status)
    task_ids = until_the_breaker_opens(live, "wrong-key-first", 40_100)
    later = send_at_once(live, "wrong-key-later", 64_010, LATER)
    task_ids += later
    until(partial(_have_met_it, live, task_ids), "every task has met the fault", 60)
    until(lambda: any(behind(live, later)), "some tasks meet the open breaker", 30)
    said = behind(live, task_ids)
    assert all("since the provider refuses the request with status 401: check the key" in each for each in said)
    probed = len(live.bill())
    until(lambda: len(live.bill()) > probed, "one more probe was refused", 30)
    live.heal()
    ended = until(lambda: _none_under_way(live, task_ids), "what waited goes on by itself", 120)
    parked = [task_id for task_id, where in ended.items() if where == "parked"]

    rows = [row for row in live.bill()[before:] if row["status"] == status]
    tokens = sum(row["input_tokens"] + row["output_tokens"] for row in rows)
    went_on = len(task_ids) - len(parked)
    print(f"\n{len(rows)} requests refused, {tokens} tokens, {len(parked)} tasks parked, {went_on} went on")
    assert refused(live, task_ids, status) == Counter(parked), "each parked task made one request, no other made any"
    assert len(rows) == len(parked) < len(task_ids)
    assert tokens == 0
    _say_what_to_mend(live, parked, status, "the key")
    finish(live, task_ids)


def finish(live: Live, task_ids: Sequence[str]) -> None:
    """Mends it, resumes what is parked, and sees that all complete."""
    live.heal()
    ended = until(lambda: _none_under_way(live, task_ids), "what waits goes on by itself", 120)
    for task_id in (task_id for task_id, where in ended.items() if where == "parked"):
        assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    live.wait_all(task_ids, "completed")


def _none_under_way(live: Live, task_ids: Sequence[str]) -> dict[str, str]:
    found = statuses(live, task_ids)
    return found if set(found.values()) <= {"parked", "completed"} else {}


def _say_what_to_mend(live: Live, parked: Sequence[str], status: int, look_at: str) -> None:
    for task_id in parked:
        said = live.view(task_id)["waiting_for"]
        assert f"status {status}" in said
        assert look_at in said
        assert "components/llm.yaml" in said


def test_when_nobody_mends_it_each_task_is_parked_after_one_request(live: Live) -> None:
    before = len(live.bill())
    live.fault("model", "status", status=403)
    task_ids = send_at_once(live, "nobody", 56_000, 2 * FIRST)
    live.wait_all(task_ids, "parked", seconds=120)
    assert refused(live, task_ids, 403) == Counter(task_ids)
    assert len(live.bill()) - before == len(task_ids)
    finish(live, task_ids)
