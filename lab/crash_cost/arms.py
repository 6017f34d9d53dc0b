"""The two arms of the experiment, which start jobs, are killed, restart and finish the jobs."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import grpc
from dapr.ext.workflow import WorkflowState

from app.config import policy
from app.config.settings import Settings
from app.dapr.daprd import Daprd
from app.tasks import workflow_client
from lab.clients import AgentApi
from lab.crash_cost import mailbox
from lab.crash_cost.jobs import Job
from lab.crash_cost.plain_runner import DONE, JOBS, REQUESTS
from lab.crash_cost.trace import Arm
from runtime import paths, processes
from runtime.errors import UserError
from runtime.processes import Child
from runtime.stack import Stack
from runtime.stack_commands import worker_environment

# Parallel jobs; few enough that a kill during that many model calls does not open the sidecar's circuit breaker.
AT_ONCE = 5


class Runner(Protocol):
    """One arm. Start further jobs only after `finish`."""

    arm: Arm

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts these jobs and returns."""
        ...

    def kill(self) -> None:
        """Kills the process that works them, with SIGKILL."""
        ...

    def restart(self) -> None:
        """Restarts that process."""
        ...

    def finish(self) -> None:
        """Waits until all started jobs are finished. Raises UserError if they do not finish."""
        ...


_POLL_SECONDS = 0.05
_FINISH_SECONDS = 300.0
_COMPLETED = "COMPLETED"


class Durable:
    """The arm that resumes: the stack's worker on Dapr Workflow, the product's or the mailbox's."""

    arm = Arm.RESUME

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._jobs: tuple[Job, ...] = ()
        self._client = workflow_client.connect(Daprd(stack.dapr_url, stack.dapr_grpc, stack.api_token))

    def start(self, jobs: Sequence[Job]) -> None:
        """Submits the tickets, or starts the mailbox workflows."""
        self._jobs = tuple(jobs)
        for job in jobs:
            self._start_mailbox(job) if job.letters else self._submit(job)

    def kill(self) -> None:
        """Kills the worker with SIGKILL."""
        self._stack.kill("worker")

    def restart(self) -> None:
        """Starts the worker again."""
        self._stack.start("worker")

    def finish(self) -> None:
        """Waits for all workflows. Raises UserError if one fails or takes too long."""
        limit = time.monotonic() + _FINISH_SECONDS
        for job in self._jobs:
            while not self._is_completed(job):
                if time.monotonic() > limit:
                    raise UserError(f"{job.task_id} has not finished; see the log {self._stack.log('worker')}.")
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _submit(self, job: Job) -> None:
        with closing(AgentApi.of(self._stack)) as api:  # a mailbox's worker has no API and no token
            if not api.submit(job.ticket):
                raise UserError(f"The agent did not accept {job.task_id}; see the log {self._stack.log('worker')}.")

    def _start_mailbox(self, job: Job) -> None:
        task = mailbox.MailboxInput(job=job, rules=policy.load(Settings().policy_file))
        self._client.schedule_new_workflow(mailbox.NAME, input=task, instance_id=job.task_id)

    def _is_completed(self, job: Job) -> bool:
        state = self._state(job)
        if state is None or not state.runtime_status.name.startswith(("COMPLETED", "FAILED", "TERMINATED")):
            return False
        if state.runtime_status.name != _COMPLETED:
            raise UserError(f"{job.task_id} ended as {state.runtime_status.name}; see {self._stack.log('worker')}.")
        return True

    def _state(self, job: Job) -> WorkflowState | None:
        """The workflow's state; None if it is unknown, or while the sidecar starts or saves the instance."""
        try:
            return self._client.get_workflow_state(job.task_id, fetch_payloads=False)
        except grpc.RpcError:
            return None


_MODULE = "lab.crash_cost.plain_runner"


class Restarting:
    """The arm that restarts at step one: the supervisor of a plain runner.

    After a kill, it starts a runner with the jobs that are not finished. Idempotency keys prevent a second refund.
    """

    arm = Arm.RESTART

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._jobs: tuple[Job, ...] = ()
        self._at_once = AT_ONCE
        self._child: Child | None = None

    def start(self, jobs: Sequence[Job], at_once: int = AT_ONCE) -> None:
        """Starts a runner with these jobs."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._jobs, self._at_once = tuple(jobs), at_once
        self._start_runner(self._jobs)

    def kill(self) -> None:
        """Kills the runner with SIGKILL."""
        processes.kill(self._running_child())

    def restart(self) -> None:
        """Starts a runner with the jobs that are not finished."""
        done = self._finished_jobs()
        self._start_runner([job for job in self._jobs if job.name not in done])

    def finish(self) -> None:
        """Waits for the runner's end. Raises UserError with the end of its log if jobs are not finished."""
        child = self._running_child()
        processes.wait_until(
            lambda: not child.alive(), what="the end of the plain runner", deadline_seconds=_FINISH_SECONDS
        )
        left = {job.name for job in self._jobs} - self._finished_jobs()
        if left:
            raise UserError(f"The plain runner has not finished {', '.join(sorted(left))}:\n{child.last_lines()}")

    def stop(self) -> None:
        """Stops the runner if it runs."""
        if self._child is not None:
            processes.stop(self._child)

    def requests(self) -> list[tuple[str, str]]:
        """Task and target of each request in order, since the jobs were started."""
        return [(task_id, target) for task_id, target in map(str.split, self._lines(REQUESTS))]

    def _start_runner(self, jobs: Sequence[Job]) -> None:
        (self._folder / JOBS).write_text("".join(f"{job.model_dump_json()}\n" for job in jobs))
        command = [sys.executable, "-m", _MODULE, str(self._folder), str(self._at_once)]
        environment = {**worker_environment(self._stack.ports, self._stack.state), **self._stack.worker_env}
        log = self._stack.state / "logs" / "plain-runner.log"
        self._child = processes.start("plain runner", command, log=log, environment=environment, folder=paths.ROOT)

    def _running_child(self) -> Child:
        if self._child is None:
            raise UserError("The plain runner was not started.", remedy="Call start first.")
        return self._child

    def _finished_jobs(self) -> set[str]:
        return set(self._lines(DONE))

    def _lines(self, name: str) -> list[str]:
        file = self._folder / name
        return file.read_text().splitlines() if file.exists() else []
