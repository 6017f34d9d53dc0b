"""Against the real runtime: what is lost with a worker or a sidecar is named; one that kills every worker is set aside;
a restart that rolls loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.dapr.history.causes import Cause
from app.dapr.history.times import TimePart
from app.domain.models import TaskStatus
from app.ledger.store.task_record import FailureKind, FailureRecord, TaskRecord
from runtime import paths, processes
from runtime.errors import ChildDied
from runtime.loopback import answers, free_ports
from runtime.processes import Child
from runtime.stack import Stack
from runtime.stack_commands import worker_command, worker_environment
from tests.live import Live, make_stack, recorded, until
from tests.whole import tickets
from tests.whole.poisoned_worker import POISON

pytestmark = pytest.mark.runtime


def ended(live: Live, task_id: str) -> TaskRecord:
    """The record of a task that has ended, as soon as it is there."""
    with live.records() as records:
        return recorded(records, task_id, *(status for status in TaskStatus if status.ended))


def held_in_classify(live: Live, ticket_id: str, number: int, seconds: float = 5.0) -> str:
    """Sends a ticket and returns once the model works on it."""
    live.fault("model", "slow", seconds=seconds, count=1)
    task_id = live.submit(tickets.refund(ticket_id, number))
    until(lambda: live.fired("model"), "the model is asked")
    return task_id


def the_failure(record: TaskRecord) -> FailureRecord:
    (failure,) = record.failures
    assert failure.kind is FailureKind.INTERRUPTED
    assert record.steps[failure.step - 1].name == "classify"
    return failure


def test_work_that_is_lost_with_its_worker_is_named(live: Live) -> None:
    begun = time.time()
    task_id = held_in_classify(live, "lost-worker", 14_000)
    live.stack.kill("worker")
    killed = time.time()
    live.stack.start("worker")
    live.wait(task_id, "completed")
    record = ended(live, task_id)
    failure = the_failure(record)
    assert failure.cause is Cause.WORKER_GONE
    assert begun <= failure.at.timestamp() <= killed, "the worker's own last sign says when, not the one that took over"
    assert failure.resumed_at is not None
    assert len(record.workers) == 2
    assert record.parts[TimePart.RESTART] == failure.resumed_at - failure.at
    assert [call.state.value for call in record.calls][:2] == ["interrupted", "settled"]
    assert any(charge.wasted and charge.meter.value == "compute" for charge in record.charges)


def test_work_that_is_lost_with_the_sidecar_is_told_apart(live: Live) -> None:
    task_id = held_in_classify(live, "lost-sidecar", 14_010)
    killed = time.time()
    live.stack.kill("daprd")
    live.stack.start("daprd")
    live.wait(task_id, "completed")
    record = ended(live, task_id)
    failures = [each for each in record.failures if each.kind is FailureKind.INTERRUPTED]
    assert {each.cause for each in failures} <= {Cause.SIDECAR_GONE}
    assert failures
    lost, resumed = failures[0].at, failures[0].resumed_at
    assert resumed is not None
    assert killed <= lost.timestamp() <= resumed.timestamp(), "after the kill, before the step is worked again"
    assert len(record.workers) == 1


def test_a_worker_that_is_stopped_in_the_middle_says_so(tmp_path: Path) -> None:
    """The model takes longer than the time of grace, and nobody's patience is shortened: whoever stops it waits."""
    with Stack(tmp_path) as stack:
        live = Live(stack)
        task_id = held_in_classify(live, "stopped", 14_020, seconds=30)
        os.kill(stack.pid("worker"), signal.SIGTERM)
        stack.wait_dead("worker", deadline_seconds=60)
        stack.start("worker")
        live.wait(task_id, "completed")
        assert the_failure(ended(live, task_id)).cause is Cause.WORKER_STOPPED
        live.close()


@contextmanager
def another_worker(live: Live) -> Iterator[Child]:
    """A second worker beside the stack's own, at the same sidecar and ledger."""
    (port,) = free_ports(1)
    environment = {**worker_environment(live.stack.ports, live.stack.state), **live.stack.worker_env}
    environment |= {"REFUND_AGENT_WEB_PORT": str(port)}
    log = live.stack.log("worker-2")
    child = processes.start("worker-2", worker_command(), log=log, environment=environment, folder=paths.ROOT)
    try:
        processes.wait_until(lambda: answers(port, "/healthz"), what="worker-2", deadline_seconds=60, children=[child])
        yield child
    finally:
        processes.stop(child)


def test_a_restart_that_rolls_loses_nothing_and_pays_nothing_twice(own_stack: Live) -> None:
    """Workers come and go under load, always one beside the other."""
    live = own_stack
    live.outside.put(f"{live.stack.model_url}/latency", json={"seconds": 0.5}).raise_for_status()
    task_ids: list[str] = []
    for turn in range(2):
        task_ids += [
            live.submit(tickets.refund(f"roll-{turn}-{number}", 15_000 + 100 * turn + number)) for number in range(15)
        ]
        with another_worker(live):
            live.stack.stop("worker")
            live.stack.start("worker")
    for view in live.wait_all(task_ids, "completed"):
        assert view["result"]["outcome"] == "refunded"
    assert len(live.bill()) == 3 * len(task_ids), "each model call was paid once"
    assert all(live.completed_steps(task_id) == tickets.REFUND_STEPS for task_id in task_ids)
    lost = [failure for task_id in task_ids for failure in ended(live, task_id).failures]
    assert lost == []


def test_a_ticket_that_kills_every_worker_is_set_aside_and_the_others_get_through(tmp_path: Path) -> None:
    with make_stack(tmp_path, worker=[sys.executable, "-m", "tests.whole.poisoned_worker"]) as stack:
        live = Live(stack)
        others = [live.submit(tickets.refund(f"innocent-{number}", 16_000 + number)) for number in range(6)]
        poison = "bench:poison"
        with suppress(httpx.HTTPError):  # it may kill the worker before that has answered
            live.submit(tickets.refund("poison", int(POISON.removeprefix("load-") + "000")))

        def dead_or_parked() -> bool:
            return not stack.alive("worker") or _status(live, poison) == "parked"

        deaths = 0
        while until(dead_or_parked, "the worker dies, or the task is set aside", 200) and not stack.alive("worker"):
            deaths += 1
            assert deaths < 10, "it is noticed after a bounded number of lives"
            with suppress(ChildDied):  # before it was ready
                stack.start("worker")
        live.wait_all(others, "completed")
        reason = live.view(poison)["waiting_for"]
        print(f"set aside after {deaths} deaths: {reason}")
        assert "step lookup_order is set aside: 5 workers" in reason
        assert "task resume bench:poison" in reason
        live.close()


def _status(live: Live, task_id: str) -> str | None:
    """None while nobody serves."""
    if not live.stack.alive("worker"):
        return None
    try:
        return str(live.view(task_id)["status"])
    except (AssertionError, httpx.HTTPError):
        return None
