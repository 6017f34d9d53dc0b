"""Placement, scheduler or sidecar stand still: tickets are taken all the same, health answers, and all ends well."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.live import Live
from tests.whole import tickets

pytestmark = pytest.mark.runtime

# Whoever waits this long waits for the process that stands still: nobody lets it go on meanwhile.
_HANGS_SECONDS = 20.0
_TICKETS = 20


@contextmanager
def standing_still(live: Live, name: str) -> Iterator[None]:
    """Stops a process of the stack as the kernel does, and lets it go on afterwards."""
    pid = live.stack.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("name", ["placement", "scheduler", "daprd"])
def test_tickets_are_taken_while_the_engine_stands_still(live: Live, name: str) -> None:
    before = live.submit(tickets.refund(f"before-{name}", 36_000))
    live.wait(before, "completed")
    first = 36_010 + 100 * ("placement", "scheduler", "daprd").index(name)
    sent = [tickets.refund(f"{name}-{number}", first + number) for number in range(_TICKETS)]

    def send(ticket: dict[str, object]) -> httpx.Response:
        return live.web.post("/tasks", json=ticket, timeout=_HANGS_SECONDS)

    with standing_still(live, name), ThreadPoolExecutor(_TICKETS) as pool:
        answers = [pool.submit(send, ticket) for ticket in sent]
        for path in ("/healthz", "/livez") * 10:
            assert live.outside.get(f"{live.stack.web_url}{path}", timeout=_HANGS_SECONDS).status_code == 200
        taken = [answer.result() for answer in answers]
        report = live.web.get("/cost/report?by=tenant", timeout=_HANGS_SECONDS)
        again = send(sent[0])
    assert {answer.status_code for answer in taken} <= {201, 202}
    if name != "placement":  # which a sidecar asks only now and then
        assert 202 in {answer.status_code for answer in taken}
    assert all(answer.headers["Location"] == f"/tasks/{answer.json()['task_id']}" for answer in taken)
    assert report.status_code == 200, "what the ledger knows can be read"
    assert again.status_code in (200, 202)

    views = live.wait_all([answer.json()["task_id"] for answer in taken], "completed")
    assert {view["result"]["outcome"] for view in views} == {"refunded"}
    refunds = [row["ticket_id"] for row in live.rows("refunds")]
    assert all(refunds.count(ticket["ticket_id"]) == 1 for ticket in sent)


def test_a_ticket_that_comes_before_the_engine_knows_where_workflows_run_is_started_later(own_stack: Live) -> None:
    """Right after a start the sidecar answers that it finds no address for the workflow's actor."""
    live = own_stack
    for name in ("worker", "daprd", "placement"):
        live.stack.kill(name)
    for name in ("daprd", "worker"):
        live.stack.start(name)
    answer = live.web.post("/tasks", json=tickets.refund("early", 37_000), timeout=_HANGS_SECONDS)
    assert answer.status_code == 202
    live.stack.start("placement")
    view = live.wait(answer.json()["task_id"], "completed")
    assert view["result"]["outcome"] == "refunded"
