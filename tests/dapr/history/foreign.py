"""A sidecar with a worker that is not the agent's, for tests of histories of other workflows."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dapr.ext.workflow import DaprWorkflowClient
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos

from app.dapr.history.model import WorkflowRun
from app.dapr.history.reader import HistoryReader
from app.tasks import workflow_client
from runtime import paths
from runtime.stack import Stack
from runtime.stack_commands import worker_environment
from tests.live import daprd_of, make_stack, sidecar_channel, until

PARTS = ("sentry", "placement", "scheduler", "daprd")


class Foreign:
    """The sidecar with its clients."""

    def __init__(self, stack: Stack, reader: HistoryReader, client: DaprWorkflowClient, stub: Any) -> None:
        self.stack = stack
        self.reader = reader
        self.client = client
        self.stub = stub

    def start(self, workflow: Any, instance_id: str, value: Any = None) -> None:
        """Starts a workflow and returns when its code has run once."""
        self.client.schedule_new_workflow(workflow, input=value, instance_id=instance_id)

    def read_when(self, instance_id: str, condition: Any, what: str) -> WorkflowRun:
        """The run, as soon as the condition is true."""

        def read() -> WorkflowRun | None:
            run = self.reader.read(instance_id)
            return run if condition(run) else None

        run = until(read, f"{instance_id}: {what}")
        assert isinstance(run, WorkflowRun)
        return run

    def ended(self, instance_id: str) -> WorkflowRun:
        """Waits for the end of a run and returns it."""
        return self.read_when(instance_id, lambda run: run.status.ended, "it ends")

    def raise_event(self, instance_id: str, name: str, text: str) -> None:
        """Raises an external event; waits for the sidecar if it is away."""
        request = protos.RaiseEventRequest(instanceId=instance_id, name=name)
        request.input.value = text
        self.stub.RaiseEvent(request, timeout=30, wait_for_ready=True)

    def rerun(self, instance_id: str, event_id: int, new_id: str) -> None:
        """Runs a workflow again from one of its events, under another id."""
        request = protos.RerunWorkflowFromEventRequest(
            sourceInstanceID=instance_id, eventID=event_id, newInstanceID=new_id
        )
        self.stub.RerunWorkflowFromEvent(request, timeout=30)

    def change_an_event(self, instance_id: str, old: bytes, new: bytes) -> None:
        """Changes a row of the state store directly: the first event that contains `old`. The rows are base64."""
        with sqlite3.connect(self.stack.state / "workflow.sqlite", timeout=30) as store:
            like = f"%||{instance_id}||history-%"
            rows = store.execute("SELECT key, value FROM state WHERE key LIKE ? ORDER BY key", (like,)).fetchall()
            key, event = next((key, event) for key, value in rows if old in (event := base64.b64decode(value)))
            changed = base64.b64encode(event.replace(old, new)).decode()
            store.execute("UPDATE state SET value = ? WHERE key = ?", (changed, key))
        store.close()


@contextmanager
def foreign(folder: Path) -> Iterator[Foreign]:
    """A running sidecar and worker."""
    with make_stack(folder, parts=PARTS) as stack, HistoryReader(daprd_of(stack)) as reader:
        command = [sys.executable, "-m", "tests.dapr.history.foreign_worker", str(stack.ports.dapr_grpc), str(folder)]
        environment = os.environ | worker_environment(stack.ports, stack.state)
        client = workflow_client.connect(daprd_of(stack))
        with (
            sidecar_channel(stack) as channel,
            subprocess.Popen(command, cwd=paths.ROOT, env=environment) as worker,
        ):
            try:
                until((folder / "ready").exists, "the worker is ready")
                yield Foreign(stack, reader, client, stubs.TaskHubSidecarServiceStub(channel))
            finally:
                worker.kill()
                client.close()
