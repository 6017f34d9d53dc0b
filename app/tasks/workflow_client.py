"""Starts, reads and steers workflow instances through the sidecar. Every call has a deadline."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any, TypeVar

import grpc
from dapr.clients.grpc.interceptors import _ClientCallDetails
from dapr.ext.workflow import DaprWorkflowClient, WorkflowState
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow.logger import LoggerOptions

from app.dapr import sdk_patches
from app.dapr.daprd import Daprd
from app.dapr.history.reader import NOT_GENUINE, NOT_WHOLE
from app.dapr.workarounds import NEVER_STARTED, TORN_READ, Workaround
from app.domain.deadline import remaining, within
from app.domain.errors import HistoryTampered, Unreachable
from app.domain.models import Decision, TaskStatus
from app.domain.standing import Standing, ended_standing, running_standing
from app.workflow.refund import NAME
from app.workflow.steps import DECISION, RESUME, RESUMED, WAKE, TaskInput

# A bound on the calls that wait for the sidecar.
#
# A sidecar that hangs, or whose scheduler is gone, accepts a call and does not answer. Without a bound every thread of
# the web server would wait for it, and requests that need no sidecar (the ledger, the health check) behind them. Calls
# beyond the bound fail at once.


class Silence(Unreachable):
    """The sidecar accepted a call and did not answer in time, so its outcome is not known."""

    code = "sidecar_silent"


class WaitingLine:
    """Lets at most `most` calls of one kind wait at once, `wait_seconds` for a place. After a call without an answer,
    one call at a time probes whether the sidecar answers again, and all others fail at once. Thread-safe."""

    def __init__(self, most: int, *, wait_seconds: float = 0.5) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._probe = threading.Lock()
        self._wait = wait_seconds
        self._silent = False

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """The context of one call, which raises Silence when it gets no answer. Raises Unreachable without a place."""
        with self._probing() if self._silent else self._waiting():
            silent = False
            try:
                yield
            except Silence:
                silent = True
                raise
            finally:
                self._silent = silent

    @contextlib.contextmanager
    def _probing(self) -> Iterator[None]:
        if not self._probe.acquire(blocking=False):
            raise Unreachable("the Dapr sidecar has not answered lately; try again in some seconds")
        try:
            yield
        finally:
            self._probe.release()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._free.acquire(timeout=remaining(self._wait)):
            raise Unreachable("too many requests wait for the Dapr sidecar already; try again in some seconds")
        try:
            yield
        finally:
            self._free.release()


Result = TypeVar("Result")

# gRPC reconnects once a second (`sdk_patches.reconnect_quickly`); 12 tries outlast two reconnects.
_TRIES, _PAUSE_SECONDS = 12, 0.25
STARTS_AT_ONCE, READS_AT_ONCE, COMMANDS_AT_ONCE = 12, 12, 4
_START_SECONDS, _READ_SECONDS, _COMMAND_SECONDS = 10.0, 5.0, 10.0

_STATUSES = {
    "COMPLETED": TaskStatus.COMPLETED,
    "FAILED": TaskStatus.FAILED,
    "TERMINATED": TaskStatus.TERMINATED,
    "SUSPENDED": TaskStatus.PAUSED,
    "STALLED": TaskStatus.PARKED,  # Dapr met another version of the workflow, or a history that is too big
}


def connect(daprd: Daprd) -> DaprWorkflowClient:
    """The SDK's client of that sidecar, with a deadline for each call. Its log is switched off, since `WorkflowClient`
    reports the same errors with the task's id."""
    options = LoggerOptions(log_handler=logging.NullHandler())
    host, _, port = daprd.grpc.rpartition(":")
    sdk_patches.use_token(daprd.token)
    client = DaprWorkflowClient(host=host, port=port, logger_options=options)
    inner = client._DaprWorkflowClient__obj  # it accepts no interceptor, and by itself waits without a deadline
    inner._stub = stubs.TaskHubSidecarServiceStub(grpc.intercept_channel(inner._channel, _Deadline()))
    return client


class _Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # gRPC ships no types
    """Sets each call's deadline to what is left of the time that `within` allows."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(
            _ClientCallDetails(
                details.method,
                remaining(_START_SECONDS),
                details.metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )


class WorkflowClient:
    """Starts, reads and steers the workflow instances of tasks. Thread-safe. Every method raises Unreachable when the
    sidecar does not answer."""

    def __init__(
        self,
        client: DaprWorkflowClient,
        pause: Callable[[float], None] = time.sleep,
        needs: Callable[[Workaround], bool] = lambda _: True,
    ) -> None:
        """`needs` says whether the sidecar may have a defect, so that its workaround is applied."""
        self._client = client
        self._pause = pause
        self._needs = needs
        self._starts, self._reads, self._commands = (
            WaitingLine(STARTS_AT_ONCE),
            WaitingLine(READS_AT_ONCE),
            WaitingLine(COMMANDS_AT_ONCE),
        )

    def start(self, task: TaskInput) -> None:
        """Starts a task's workflow; does nothing when it is running already."""
        try:
            with self._starts.place(), within(_START_SECONDS):
                self._ask(lambda client: client.schedule_new_workflow(NAME, input=task, instance_id=task.task_id))
        except _AlreadyRunning:
            return

    def get(self, task_id: str) -> Standing | None:
        """The standing of an instance; None when Dapr has none with this id. Raises HistoryTampered."""
        try:
            with self._reads.place(), within(_READ_SECONDS):
                state = self._ask(lambda client: client.get_workflow_state(task_id))
        except _NotGenuine as error:
            raise HistoryTampered(task_id, str(error)) from None
        return None if state is None else _standing(state)

    def decide(self, task_id: str, decision: Decision) -> None:
        """Hands a person's decision to the task."""
        data = decision.model_dump(mode="json")
        self._command(lambda client: client.raise_workflow_event(task_id, DECISION, data=data))

    def unpark(self, task_id: str) -> None:
        """Makes a parked task try its step again."""
        self._command(lambda client: client.raise_workflow_event(task_id, RESUME, data=RESUMED))

    def begin(self, task_id: str) -> None:
        """Makes Dapr run the first turn of a task that it accepted and never started. A daprd without `NEVER_STARTED`
        does so when the task is read."""
        if self._needs(NEVER_STARTED):
            self.wake(task_id)
        else:
            with contextlib.suppress(HistoryTampered):  # readers of the task get this error themselves
                self.get(task_id)

    def wake(self, task_id: str) -> None:
        """Makes Dapr run a turn of a task, by an event that the task ignores."""
        self._command(lambda client: client.raise_workflow_event(task_id, WAKE, data={"wake": True}))

    def pause(self, task_id: str) -> None:
        """Suspends the task between two steps."""
        self._command(lambda client: client.pause_workflow(task_id))

    def resume(self, task_id: str) -> None:
        """Ends a suspension."""
        self._command(lambda client: client.resume_workflow(task_id))

    def terminate(self, task_id: str, reason: str) -> None:
        """Ends the task for good."""
        self._command(lambda client: client.terminate_workflow(task_id, output={"reason": reason}))

    def _command(self, call: Callable[[DaprWorkflowClient], None]) -> None:
        with self._commands.place(), within(_COMMAND_SECONDS):
            self._ask(call)

    def _ask(self, call: Callable[[DaprWorkflowClient], Result]) -> Result:
        """Makes a call, and repeats it for about three seconds while the failure cannot have changed anything, such as
        when the sidecar is just starting."""
        for earlier_tries in range(_TRIES):
            try:
                return call(self._client)
            except grpc.RpcError as error:
                if not self._may_repeat(error, earlier_tries) or not remaining(_PAUSE_SECONDS):
                    raise _translate(error) from None
                last = error
            self._pause(_PAUSE_SECONDS)
        raise _translate(last) from None

    def _may_repeat(self, error: grpc.RpcError, earlier_tries: int) -> bool:
        """Whether to repeat a call: it was never sent, or it read an instance while daprd emptied the instance's inbox.
        A daprd without `TORN_READ` repeats such a read itself, so then it is repeated only once."""
        details = str(error.details())
        if NOT_WHOLE in details:
            return earlier_tries == 0 or self._needs(TORN_READ)
        return "failed to connect to all addresses" in details


class _AlreadyRunning(Exception):
    """Dapr has an active instance under this id."""


class _NotGenuine(Exception):
    """The history of this id does not verify."""


def _translate(error: grpc.RpcError) -> Exception:
    details = str(error.details())
    if "already exists" in details:
        return _AlreadyRunning()
    if any(sign in details for sign in (*NOT_GENUINE, NOT_WHOLE)):
        return _NotGenuine(details)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Silence(
            "the Dapr sidecar does not answer in time, so it is not known whether the request was carried out: "
            "look with `task show`; see `refund-agent doctor`"
        )
    return Unreachable(f"the Dapr sidecar does not answer ({details[:200]}); see `refund-agent doctor`")


def _standing(state: WorkflowState) -> Standing:
    at = state.last_updated_at.replace(tzinfo=UTC)
    status = _STATUSES.get(state.runtime_status.name)
    if status is None or not status.ended:
        return running_standing(state.serialized_custom_status, at, status)
    failure = str(state.failure_details.message) if state.failure_details is not None else None
    return ended_standing(status, at, state.serialized_output, failure)
