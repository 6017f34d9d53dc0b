"""Against the real runtime: what lists and views say while tasks move, and when Dapr knows them no more."""

from __future__ import annotations

from typing import Any

import pytest
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos

from app.ledger import database
from app.ledger.reading import Records
from app.models import TaskStatus
from tests.live import Live, recorded, sidecar_channel, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def listed(live: Live, task_id: str, status: str) -> dict[str, Any]:
    """The task, as soon as the list by that status has it."""

    def found() -> dict[str, Any] | None:
        page = live.web.get("/tasks", params={"status": status, "limit": 200}).raise_for_status().json()
        return next((view for view in page["tasks"] if view["task_id"] == task_id), None)

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


def test_a_completed_task_that_dapr_purged_stays_completed(live: Live) -> None:
    ticket = tickets.question("stores-purged", 44_502)
    task_id = live.submit(ticket)
    before = live.wait(task_id, "completed")
    engine = database.connect(f"sqlite:///{live.stack.state / 'ledger.sqlite'}")
    recorded(Records(engine), task_id, TaskStatus.COMPLETED)
    engine.dispose()
    purge(live, task_id)
    again = live.web.post("/tasks", json=ticket)
    for view in (live.view(task_id), listed(live, task_id, "completed"), again.json()):
        assert {key: view[key] for key in ("status", "result", "caveat")} == {
            "status": "completed",
            "result": before["result"],
            "caveat": None,
        }
    for verb in ("pause", "resume", "reject"):
        answer = live.web.post(f"/tasks/{task_id}/{verb}")
        assert (answer.status_code, "has ended (completed)" in answer.json()["detail"]) == (409, True)
