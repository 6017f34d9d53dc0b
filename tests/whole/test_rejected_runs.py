"""Against the real runtime: a task that Dapr condemned for no fault of its own is worked again, a tampered one not."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import grpc
import pytest
from dapr.ext.workflow._durabletask.internal import backend_service_pb2, protos

from tests.live import Live, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

HONEST = "activity completion references unknown task scheduled id 4"
FORGED = "workflow history signature verification failed: events digest mismatch for range [3, 6)"


def condemn(live: Live, task_id: str, words: str) -> None:
    """Writes what daprd writes into the store when it gives a run up; daprd must not run meanwhile."""
    event = protos.HistoryEvent(eventId=-1)
    event.timestamp.FromDatetime(datetime.now(UTC))
    event.executionCompleted.workflowStatus = protos.ORCHESTRATION_STATUS_FAILED
    event.executionCompleted.failureDetails.errorType = "DAPR_WORKFLOW_HISTORY_TAMPERED"
    event.executionCompleted.failureDetails.errorMessage = words
    with closing(sqlite3.connect(live.stack.state / "workflow.sqlite")) as connection, connection:
        like = f"%||{task_id}||metadata"
        ((key, value),) = connection.execute("SELECT key, value FROM state WHERE key LIKE ?", (like,)).fetchall()
        metadata = backend_service_pb2.BackendWorkflowStateMetadata.FromString(base64.b64decode(value))
        row = key.removesuffix("metadata") + f"history-{metadata.historyLength:06d}"
        metadata.historyLength += 1
        columns = [
            each[1] for each in connection.execute("PRAGMA table_info(state)") if each[1] not in ("key", "value")
        ]
        kept = ", ".join(columns)
        connection.execute(
            f"INSERT INTO state (key, value, {kept}) SELECT ?, ?, {kept} FROM state WHERE key = ?",  # noqa: S608 - names of its own
            (row, _text(event.SerializeToString()), key),
        )
        connection.execute("UPDATE state SET value = ? WHERE key = ?", (_text(metadata.SerializeToString()), key))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_an_honest_task_that_was_condemned_is_worked_again_and_a_forged_one_is_left_alone(own_stack: Live) -> None:
    live = own_stack
    honest, forged = live.submit(tickets.greedy("honest", 17_000)), live.submit(tickets.greedy("forged", 17_001))
    live.wait_all([honest, forged], "waiting")
    paid, run = len(live.bill()), _run(live, honest)
    live.stack.stop("worker")
    live.stack.stop("daprd")
    condemn(live, honest, HONEST)
    condemn(live, forged, FORGED)
    live.stack.start("daprd")
    live.stack.start("worker")

    until(lambda: _run(live, honest) not in (run, None), "it is begun again")
    live.wait(honest, "waiting")
    live.web.post(f"/tasks/{honest}/approve", json={}).raise_for_status()
    assert live.wait(honest, "completed")["result"]["outcome"] == "refunded"
    assert live.view(forged)["status"] == "failed"
    assert [row["ticket_id"] for row in live.rows("refunds")] == ["honest"]

    record = until(lambda: _record(live, honest), "the second run is recorded")
    assert [call["state"] for call in record["calls"]] == ["settled"] * 3, "the first run's answers are the second's"
    assert len(live.bill()) == paid, "nothing was paid again"


def _run(live: Live, task_id: str) -> str | None:
    """Names the run that Dapr has under this id; None for one that does not verify, or between two."""
    try:
        events = live.history(task_id)
    except grpc.RpcError:
        return None
    started = [each.executionStarted for each in events if each.HasField("executionStarted")]
    return str(started[0].workflowInstance.executionId.value) if started else None


def _record(live: Live, task_id: str) -> dict[str, object] | None:
    response = live.web.get(f"/tasks/{task_id}/record")
    return response.json() if response.status_code == 200 and response.json()["ended_at"] else None
