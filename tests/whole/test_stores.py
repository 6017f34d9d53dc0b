"""Against the real runtime: what lists and views say while tasks move, and when Dapr knows them no more."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos
from typer.testing import CliRunner, Result

from app.cli.root import cli
from tests.live import Live, sidecar_channel, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def listed(live: Live, task_id: str, status: str) -> dict[str, Any]:
    """The task, as soon as the list by that status has it, on whichever page: the stack is shared with other tests."""

    def found() -> dict[str, Any] | None:
        after: str | None = None
        while True:
            asked = {"status": status, "limit": "200"} | ({"after": after} if after else {})
            page = live.web.get("/tasks", params=asked).raise_for_status().json()
            for view in page["tasks"]:
                if view["task_id"] == task_id:
                    return dict(view)
            after = page["next_after"]
            if after is None:
                return None

    return dict(until(found, f"{task_id} is listed as {status}"))


def purge(live: Live, task_id: str) -> None:
    """Has Dapr forget an instance that has ended, as its API and its retention policy do."""
    with sidecar_channel(live.stack) as channel:
        stub = stubs.TaskHubSidecarServiceStub(channel)
        purged = stub.PurgeInstances(protos.PurgeInstancesRequest(instanceId=task_id))
    assert purged.deletedInstanceCount == 1


def test_a_task_is_listed_as_what_it_is_while_it_moves(live: Live) -> None:
    task_id = live.submit(tickets.greedy("stores-moves", 44_500))
    waiting = listed(live, task_id, "waiting")
    assert waiting["waiting_for"]
    assert waiting["proposed_refund"]
    assert waiting["question"]["number"] == 1
    for verb, status in (("pause", "paused"), ("resume", "waiting"), ("reject", "completed")):
        live.web.post(f"/tasks/{task_id}/{verb}").raise_for_status()
        now = listed(live, task_id, status)
    assert now["result"]["outcome"] == "rejected"
    assert (now["waiting_for"], now["caveat"]) == (None, None)
    ended = live.submit(tickets.greedy("stores-ended", 44_501))
    listed(live, ended, "waiting")
    live.web.post(f"/tasks/{ended}/terminate", json={"reason": "a test"}).raise_for_status()
    assert "a test" in listed(live, ended, "terminated")["error"]


def command(live: Live, *arguments: str) -> Result:
    """`refund-agent ...`, as somebody runs it beside the agent."""
    environment = {
        "REFUND_AGENT_STATE_DIR": str(live.stack.state),
        "REFUND_AGENT_DAPR_HTTP_PORT": str(live.stack.ports.dapr_http),
        "REFUND_AGENT_DAPR_GRPC_PORT": str(live.stack.ports.dapr_grpc),
    }
    return CliRunner().invoke(cli, arguments, env=environment)


def no_difference(live: Live) -> bool:
    return command(live, "ledger", "check").exit_code == 0


def backup(live: Live, name: str) -> Path:
    """A copy of a SQLite store as it is now."""
    copy = live.stack.state / f"{name}.backup"
    with closing(sqlite3.connect(live.stack.state / name)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def restore(live: Live, name: str, copy: Path) -> None:
    """Puts it in the place of the store; whoever has that open must not run."""
    for file in live.stack.state.glob(f"{name}*"):
        if file != copy:
            file.unlink()
    copy.rename(live.stack.state / name)


def test_stores_that_were_lost_or_restored_are_brought_to_agree_again(own_stack: Live) -> None:
    live, stack = own_stack, own_stack.stack
    refunded = live.submit(tickets.refund("kept", 44_510))
    waits_ticket = tickets.greedy("waits", 44_511)
    waits = live.submit(waits_ticket)
    live.wait_all([refunded, waits])
    until(lambda: no_difference(live), lambda: command(live, "ledger", "check").stdout)
    before = live.view(refunded)
    older = backup(live, "workflow.sqlite")

    for file in stack.state.glob("ledger.sqlite*"):
        file.unlink()
    refused = live.web.post("/tasks", json=tickets.question("into-nothing", 44_512))
    assert (refused.status_code, "ledger rebuild" in refused.json()["detail"]) == (503, True)
    stack.stop("worker")
    stack.start("worker")
    found = command(live, "ledger", "check")
    assert f"task {refunded}: ticket: the sources say a task that is completed" in found.stdout
    assert "restores it" in found.stdout
    assert "taken back" not in found.stdout
    assert command(live, "ledger", "rebuild").exit_code == 0
    assert no_difference(live), command(live, "ledger", "check").stdout
    assert live.view(refunded)["result"] == before["result"]
    assert listed(live, waits, "waiting")["waiting_for"]

    lost_ticket = tickets.greedy("lost", 44_513)
    lost = live.submit(lost_ticket)
    live.wait(lost, "waiting")
    until(lambda: no_difference(live), lambda: command(live, "ledger", "check").stdout)
    stack.stop("worker")
    stack.stop("daprd")
    restore(live, "workflow.sqlite", older)
    stack.start("daprd")
    stack.start("worker")
    view = live.view(lost)
    assert (view["status"], "not known to the workflow engine" in view["caveat"]) == ("waiting", True)
    assert f"`refund-agent task rerun {lost}`" in command(live, "ledger", "check").stdout
    live.web.post("/tasks", json=lost_ticket).raise_for_status()
    until(lambda: live.view(lost)["caveat"] is None and live.view(lost)["status"] == "waiting", "it was begun again")
    live.web.post("/tasks", json=waits_ticket).raise_for_status()
    for task_id in (lost, waits):
        live.web.post(f"/tasks/{task_id}/reject").raise_for_status()
    live.wait_all([lost, waits], "completed")
    until(lambda: no_difference(live), lambda: command(live, "ledger", "check").stdout)
    assert live.view(refunded)["result"] == before["result"]

    purge(live, refunded)
    again = live.web.post("/tasks", json=tickets.refund("kept", 44_510)).json()
    for view in (live.view(refunded), listed(live, refunded, "completed"), again):
        assert (view["status"], view["result"], view["caveat"]) == ("completed", before["result"], None)
    for verb in ("pause", "resume", "rerun", "reject"):
        answer = live.web.post(f"/tasks/{refunded}/{verb}")
        assert (answer.status_code, "completed" in answer.json()["detail"]) == (409, True)
    assert no_difference(live), command(live, "ledger", "check").stdout


def test_a_task_whose_history_was_changed_hides_no_other_and_says_so(own_stack: Live) -> None:
    live = own_stack
    changed, other = live.submit(tickets.greedy("changed", 44_520)), live.submit(tickets.greedy("other", 44_521))
    live.wait_all([changed, other], "waiting")
    live.stack.stop("worker")
    live.stack.stop("daprd")
    change_history(live, changed)
    live.stack.start("daprd")
    live.stack.start("worker")
    view = live.view(changed)
    assert (view["status"], "does not verify" in view["caveat"]) == ("waiting", True)
    assert live.web.post(f"/tasks/{changed}/reject").status_code == 409
    assert listed(live, changed, "waiting")["waiting_for"]
    assert listed(live, other, "waiting")["waiting_for"]


def change_history(live: Live, task_id: str) -> None:
    """One bit of what the store holds of a task's first step."""
    with closing(sqlite3.connect(live.stack.state / "workflow.sqlite")) as connection, connection:
        row = connection.execute(
            "SELECT key, value FROM state WHERE key LIKE ?", (f"%||{task_id}||history-000002",)
        ).fetchone()
        content = bytearray(base64.b64decode(row[1]))
        content[-1] ^= 1
        connection.execute("UPDATE state SET value = ? WHERE key = ?", (base64.b64encode(content).decode(), row[0]))
