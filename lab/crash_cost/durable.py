"""The arm that is resumed: the product's worker, or the mailbox's, on Dapr Workflow."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc
import httpx
from dapr.ext.workflow import WorkflowState

from app.config import policy
from app.config.settings import Settings
from app.dapr.daprd import Daprd
from app.tasks import workflow_client
from app.tasks.access import read_local_token
from lab.crash_cost import mailbox
from lab.crash_cost.jobs import Job
from lab.crash_cost.theory import Arm
from runtime.problems import Problem
from runtime.stack import Stack

_POLL_SECONDS = 0.05
_FINISH_SECONDS = 300.0
_COMPLETED = "COMPLETED"


class Durable:
    """Jobs as workflows of a stack."""

    arm = Arm.RESUME

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._jobs: tuple[Job, ...] = ()
        self._client = workflow_client.connect(Daprd(stack.dapr_url, stack.dapr_grpc, stack.api_token))

    def begin(self, jobs: Sequence[Job]) -> None:
        """Hands the tickets to the agent, or starts the mailboxes."""
        self._jobs = tuple(jobs)
        for job in jobs:
            self._start_mailbox(job) if job.letters else self._submit(job)

    def kill(self) -> None:
        """SIGKILLs the worker."""
        self._stack.kill("worker")

    def go_on(self) -> None:
        """Starts a worker."""
        self._stack.start("worker")

    def finish(self) -> None:
        """Waits for every workflow. Raises Problem when one fails, or takes too long."""
        limit = time.monotonic() + _FINISH_SECONDS
        for job in self._jobs:
            while not self._completed(job):
                if time.monotonic() > limit:
                    raise Problem(f"{job.task_id} has not finished; see the log {self._stack.log('worker')}.")
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _submit(self, job: Job) -> None:
        token = read_local_token(self._stack.state / "token")
        headers = {"Authorization": f"Bearer {token}"}
        body = job.ticket.model_dump(mode="json")
        httpx.post(
            f"{self._stack.web_url}/tasks", json=body, headers=headers, timeout=60, trust_env=False
        ).raise_for_status()

    def _start_mailbox(self, job: Job) -> None:
        task = mailbox.MailboxInput(job=job, rules=policy.load(Settings().policy_file))
        self._client.schedule_new_workflow(mailbox.NAME, input=task, instance_id=job.task_id)

    def _completed(self, job: Job) -> bool:
        state = self._state(job)
        if state is None or not state.runtime_status.name.startswith(("COMPLETED", "FAILED", "TERMINATED")):
            return False
        if state.runtime_status.name != _COMPLETED:
            raise Problem(f"{job.task_id} ended as {state.runtime_status.name}; see {self._stack.log('worker')}.")
        return True

    def _state(self, job: Job) -> WorkflowState | None:
        """None also while the sidecar is being started, or just saving the instance."""
        try:
            return self._client.get_workflow_state(job.task_id, fetch_payloads=False)
        except grpc.RpcError:
            return None
