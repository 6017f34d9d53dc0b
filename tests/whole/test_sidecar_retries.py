"""Requests that the sidecar repeated by itself, against the bill of the model server: counted, or known as lost."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table, select

from app.cli.checks import metrics
from app.config.settings import Settings
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS, SIDECAR_RETRIES
from tests.live import Live, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def table(live: Live, wanted: Table) -> list[dict[str, Any]]:
    """A table of the running product's ledger."""
    engine = database.connect(f"sqlite:///{live.stack.state / 'ledger.sqlite'}")
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(wanted)).mappings()]
    finally:
        engine.dispose()


def send(live: Live, name: str, first: int, count: int) -> list[str]:
    """Sends some clear refunds and returns their tasks."""
    return [live.submit(tickets.refund(f"{name}-{number}", first + number)) for number in range(count)]


def age_of_the_sidecar(live: Live) -> float:
    """Seconds since daprd was started, as it says itself."""
    page = live.outside.get(f"{live.stack.dapr_metrics_url}/metrics").raise_for_status().text
    (started,) = re.findall(r"^process_start_time_seconds (\S+)$", page, re.MULTILINE)
    return time.time() - float(started)


def counted(live: Live) -> int:
    """What the agent's own metrics say of the sidecar's."""
    page = live.web.get("/metrics").raise_for_status().text
    (found,) = re.findall(r"^refund_agent_sidecar_counted (\S+)$", page, re.MULTILINE)
    return int(float(found))


def own_requests(rows: Sequence[dict[str, Any]]) -> int:
    """How many calls of the journal left for the provider: the breaker refused the others at once."""
    return sum(not refused(row) or row in refused_repeats(rows) for row in rows)


def refused_repeats(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls whose repeat the breaker refused: it came a second after their own request."""
    return [row for row in rows if refused(row) and row["ended_at"] - row["started_at"] > timedelta(seconds=0.9)]


def refused(row: dict[str, Any]) -> bool:
    """Whether the breaker ended the call."""
    return "breaker_open" in (row["error"] or "")


def work_through_faults(live: Live) -> None:
    """Sixty tickets under seeded faults of every kind, then an outage that opens the breaker, then health."""
    live.fault("model", "status", status=500, share=0.2, seed=1)
    live.fault("model", "status", status=429, share=0.1, seed=2)
    live.fault("model", "cut", share=0.1, seed=3)
    live.fault("model", "malformed", share=0.05, seed=4)
    live.fault("model", "timeout", share=0.02, seed=5)
    task_ids = send(live, "faults", 40_000, 40)
    live.wait_all(task_ids, "completed", seconds=200)
    live.fault("model", "status", status=500)
    task_ids = send(live, "outage", 41_000, 20)

    def some_refused() -> bool:
        rows = table(live, MODEL_CALLS)
        return own_requests(rows) + 10 < len(rows)

    until(some_refused, "the open breaker has refused some calls", 60)
    live.heal()
    live.wait_all(task_ids, "completed", seconds=100)


def test_what_the_sidecar_repeated_is_counted_but_for_what_the_breaker_refused(repeating_stack: Live) -> None:
    live = repeating_stack
    work_through_faults(live)
    live.stack.stop("worker")
    calls, retries, bill = table(live, MODEL_CALLS), table(live, SIDECAR_RETRIES), live.bill()
    assert {row["provider"] for row in calls} == {"conversation.openai"}, "known before the first call"
    assert None not in [row["count"] for row in retries]
    counted = sum(row["count"] for row in retries)
    assert counted > 20
    assert counted - len(refused_repeats(calls)) == len(bill) - own_requests(calls)
    assert not metrics(Settings(dapr_metrics_port=live.stack.ports.dapr_metrics)).ok, "doctor says what it repeated"


def test_a_restart_of_the_sidecar_is_a_time_of_which_nobody_knows(repeating_stack: Live) -> None:
    live = repeating_stack
    until(
        lambda: age_of_the_sidecar(live) > 3, "the sidecar's start can be told from another's, to a second and a half"
    )
    live.fault("model", "slow", seconds=5.0, count=1)
    task_id = live.submit(tickets.refund("restart", 42_000))
    until(lambda: live.fired("model"), "a call is in flight")
    live.stack.kill("daprd")
    live.stack.start("daprd")
    live.wait(task_id, "completed")
    (gap,) = until(lambda: table(live, SIDECAR_RETRIES), "the gap is written")
    assert gap["count"] is None
    assert gap["from_at"] < gap["to_at"]
    assert gap["from_at"] < max(row["started_at"] for row in table(live, MODEL_CALLS))


def test_metrics_lost_by_a_live_edit_are_noticed_until_the_sidecar_is_started_again(repeating_stack: Live) -> None:
    live = repeating_stack
    until(lambda: age_of_the_sidecar(live) > 3, "its start can be told from the next one's")
    assert counted(live) == 1
    policy = live.stack.folder / "resiliency" / "llm.yaml"
    policy.write_text(re.sub(r"maxRequests: \d+", "maxRequests: 2", policy.read_text()))
    until(lambda: counted(live) == 0, "the agent says that nothing is counted")
    live.fault("model", "status", status=500, share=0.3, seed=8)
    live.wait_all(send(live, "lost", 44_000, 5), "completed", seconds=100)
    (gap,) = until(lambda: table(live, SIDECAR_RETRIES), "the time of which nobody knows is written while it lasts")
    assert gap["count"] is None
    finding = metrics(Settings(dapr_metrics_port=live.stack.ports.dapr_metrics))
    assert not finding.ok
    assert "1.18.5" in finding.found
    live.stack.kill("daprd")
    live.stack.start("daprd")
    until(lambda: counted(live) == 1, "it counts again")
    live.wait_all(send(live, "again", 45_000, 5), "completed", seconds=100)
    live.stack.stop("worker")
    calls, rows = table(live, MODEL_CALLS), table(live, SIDECAR_RETRIES)
    gaps = [row for row in rows if row["count"] is None]
    assert len(gaps) <= 2, "one while it lasts, one until the next one answers"
    known = own_requests(calls) + sum(row["count"] or 0 for row in rows)
    assert known < len(live.bill()), "what is missing was asked in that time"


def test_as_shipped_the_sidecar_repeats_nothing_and_every_request_is_a_row_of_the_journal(own_stack: Live) -> None:
    live = own_stack
    live.fault("model", "status", status=500, share=0.3, seed=6)
    live.fault("model", "cut", share=0.1, seed=7)
    live.wait_all(send(live, "once", 43_000, 20), "completed", seconds=120)
    live.stack.stop("worker")
    calls = table(live, MODEL_CALLS)
    assert [row["count"] for row in table(live, SIDECAR_RETRIES) if row["count"]] == []
    assert any(row["state"] == "failed" for row in calls)
    assert len(live.bill()) == len([row for row in calls if "breaker_open" not in (row["error"] or "")])
