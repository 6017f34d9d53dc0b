"""Hundreds of tasks wait for a person: the worker holds nothing for them, and all go on when the word comes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live import Live, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

# `REFUND_AGENT_TEST_WAITING=1000` makes it a measurement.
TASKS = int(os.environ.get("REFUND_AGENT_TEST_WAITING", "60"))
# What a Python process that has worked that many tasks keeps for caches and fragmentation, not for the tasks.
_MEBIBYTES_ALLOWED = 64


def threads_and_memory(pid: int) -> tuple[int, float]:
    """A process's threads and resident mebibytes."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["Threads"]), int(status["VmRSS"].split()[0]) / 1024


def work_a_few(live: Live) -> None:
    """Lets the worker warm up: every code path used, every pool of threads filled."""
    with ThreadPoolExecutor(8) as pool:
        sent = [tickets.refund(f"warm-{number}", 30_000 + number) for number in range(48)]
        live.wait_all(list(pool.map(live.submit, sent)), "completed")


def approve(live: Live, task_id: str) -> int:
    """Approves, as soon as the sidecar takes decisions again; returns the answer's status."""

    def answered() -> int:
        status = live.web.post(f"/tasks/{task_id}/approve").status_code
        return 0 if status == 503 else status

    return int(until(answered, f"{task_id} can be decided"))


@pytest.mark.timeout(900)
def test_many_waiting_tasks(own_stack: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live = own_stack
    work_a_few(live)
    threads_before, memory_before = threads_and_memory(live.stack.pid("worker"))

    with ThreadPoolExecutor(8) as pool:
        sent = [tickets.greedy(f"wait-{number}", 31_000 + number) for number in range(TASKS)]
        task_ids = list(pool.map(live.submit, sent))
    live.wait_all(task_ids, "waiting", seconds=300)
    threads, memory = threads_and_memory(live.stack.pid("worker"))
    with capsys.disabled():
        print(
            f"\n{TASKS} tasks wait for approval: worker threads {threads_before} -> {threads}, "
            f"memory {memory_before:.1f} -> {memory:.1f} MiB"
        )
    assert threads <= threads_before + 2
    assert memory <= memory_before + _MEBIBYTES_ALLOWED

    for victim in ("worker", "daprd"):
        live.stack.kill(victim)
        live.stack.start(victim)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda task_id: approve(live, task_id), task_ids))
    assert set(answers) <= {200, 202}, "accepted, or handed over"
    for view in live.wait_all(task_ids, "completed", seconds=300):
        assert view["result"]["outcome"] == "refunded"
        assert view["result"]["decided_by"] == "local"
    posted = [row for row in live.rows("refunds") if row["ticket_id"].startswith("wait-")]
    assert len(posted) == TASKS
    assert {row["amount"] for row in posted} == {"20.00"}
