"""A model that serves one request at a time: calls wait with us, and none is lost or repeated."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from app.domain.models import CallState
from tests.live import Live, make_stack
from tests.whole import tickets

pytestmark = pytest.mark.runtime

TASKS, SECONDS = 16, 0.5


def product(folder: Path, limits: str) -> Live:
    """A product whose policy limits the component `llm`."""
    stack = make_stack(folder)
    policy = stack.folder / "config" / "policy.yaml"
    assert "\nmodels: {}\n" in policy.read_text()
    policy.write_text(policy.read_text().replace("\nmodels: {}\n", f"\nmodels: {{limits: {{llm: {limits}}}}}\n"))
    stack.__enter__()
    return Live(stack)


def capacity(live: Live, **capacity: int) -> None:
    """What the model server serves from now on."""
    live.outside.put(f"{live.stack.model_url}/capacity", json=capacity).raise_for_status()


def test_a_model_that_serves_one_at_a_time_is_kept_busy_and_never_asked_in_vain(tmp_path: Path) -> None:
    live = product(tmp_path, "{concurrent_calls: 1, longest_wait_seconds: 4}")
    try:
        capacity(live, concurrent=1)
        live.outside.put(f"{live.stack.model_url}/latency", json={"seconds": SECONDS}).raise_for_status()
        started = time.monotonic()
        ids = [live.submit(tickets.question(f"queue-{number}", 36_000 + number)) for number in range(TASKS)]
        live.wait_all(ids, "completed")
        took = time.monotonic() - started
        journal, bill = live.calls(), live.bill()
        assert Counter(call.state for call in journal) == {CallState.SETTLED: 2 * TASKS}
        assert len(bill) == 2 * TASKS, "nothing was repeated"
        spans = sorted((call.started_at, call.ended_at) for call in journal if call.ended_at)
        assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
        steps = sum((live.completed_steps(task) for task in ids), Counter())
        assert steps["classify"] + steps["draft_refund"] > 2 * TASKS, "some tasks paused durably"
        assert took < 2 * TASKS * SECONDS * 1.5, "the model hardly ever waited for us"
    finally:
        live.close()
        live.stack.__exit__(None, None, None)
