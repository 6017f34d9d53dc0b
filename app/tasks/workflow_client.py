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
from app.dapr.workarounds import NEVER_BEGUN, TORN_READ, Workaround
from app.domain.deadline import left, within
from app.domain.errors import HistoryTampered, Unreachable
from app.domain.models import Decision, TaskStatus
from app.domain.standing import Standing, ended, under_way
from app.workflow.refund import NAME
from app.workflow.steps import DECISION, RESUME, RESUMED, WAKE, TaskInput

# How many may wait for the sidecar at once, and for how long: the others are told so, and their threads stay free.
#
# A sidecar that stands still, or whose scheduler is gone, takes a call and does not answer. Without a bound, each
# thread of the web would wait for it, and what needs no sidecar (the ledger, the health check) would wait behind them.


class Silence(Unreachable):
    """The sidecar took a call and did not answer in time: what came of it is not known."""

    code = "sidecar_silent"


class WaitingLine:
    """At most `most` calls of one kind at once. Once one was not answered, only one at a time finds out whether that is
    still so; the others are told at once. Thread-safe."""

    def __init__(self, most: int, *, wait_seconds: float = 0.5) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._scout = threading.Lock()
        self._wait = wait_seconds
        self._silent = False

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Around one call, which raises Silence when it gets no answer. Raises Unreachable when there is no place."""
        with self._scouting() if self._silent else self._waiting():
            silent = False
            try:
                yield
            except Silence:
                silent = True
                raise
            finally:
                self._silent = silent

    @contextlib.contextmanager
    def _scouting(self) -> Iterator[None]:
        if not self._scout.acquire(blocking=False):
            raise Unreachable("the Dapr sidecar has not answered lately; try again in some seconds")
        try:
            yield
        finally:
            self._scout.release()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._free.acquire(timeout=left(self._wait)):
            raise Unreachable("too many requests wait for the Dapr sidecar already; try again in some seconds")
        try:
            yield
        finally:
            self._free.release()


Result = TypeVar("Result")

# A lost connection is tried again once a second (`sdk_patches.reconnect_quickly`): this outlasts two such tries.
_TRIES, _PAUSE_SECONDS = 12, 0.25
# Without a bound, one thread of the web after the other would wait for a sidecar that stands still.
STARTS_AT_ONCE, READS_AT_ONCE, WORDS_AT_ONCE = 12, 12, 4
_START_SECONDS, _READ_SECONDS, _WORD_SECONDS = 10.0, 5.0, 10.0

_STATUSES = {
    "COMPLETED": TaskStatus.COMPLETED,
    "FAILED": TaskStatus.FAILED,
    "TERMINATED": TaskStatus.TERMINATED,
    "SUSPENDED": TaskStatus.PAUSED,
    "STALLED": TaskStatus.PARKED,  # by Dapr: another version of the workflow, or a history that is too big
}


def connect(daprd: Daprd) -> DaprWorkflowClient:
    """The SDK's client of that sidecar; what it would log, ours says with the task."""
    options = LoggerOptions(log_handler=logging.NullHandler())
    host, _, port = daprd.grpc.rpartition(":")
    sdk_patches.use_token(daprd.token)
    client = DaprWorkflowClient(host=host, port=port, logger_options=options)
    inner = client._DaprWorkflowClient__obj  # it takes no interceptor, and waits for ever
    inner._stub = stubs.TaskHubSidecarServiceStub(grpc.intercept_channel(inner._channel, _Deadline()))
    return client


class _Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # gRPC ships no types
    """Gives each call what is left of the time that `within` allows."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(
            _ClientCallDetails(
                details.method,
                left(_START_SECONDS),
                details.metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )


class WorkflowClient:
    """The workflow side of a task. Thread-safe; raises Unreachable when the sidecar does not answer."""

    def __init__(
        self,
        client: DaprWorkflowClient,
        pause: Callable[[float], None] = time.sleep,
        needs: Callable[[Workaround], bool] = lambda _: True,
    ) -> None:
        """`needs` says which of its defects the sidecar may have."""
        self._client = client
        self._pause = pause
        self._needs = needs
        self._starts, self._reads, self._words = (
            WaitingLine(STARTS_AT_ONCE),
            WaitingLine(READS_AT_ONCE),
            WaitingLine(WORDS_AT_ONCE),
        )

    def start(self, task: TaskInput) -> None:
        """Starts a task's workflow; one that runs already is left alone."""
        try:
            with self._starts.place(), within(_START_SECONDS):
                self._ask(lambda client: client.schedule_new_workflow(NAME, input=task, instance_id=task.task_id))
        except _AlreadyRunning:
            return

    def get(self, task_id: str) -> Standing | None:
        """Where one instance stands; None when Dapr knows none under this id. Raises HistoryTampered."""
        try:
            with self._reads.place(), within(_READ_SECONDS):
                state = self._ask(lambda client: client.get_workflow_state(task_id))
        except _NotGenuine as error:
            raise HistoryTampered(task_id, str(error)) from None
        return None if state is None else _standing(state)

    def decide(self, task_id: str, decision: Decision) -> None:
        """Hands a person's decision to the task."""
        data = decision.model_dump(mode="json")
        self._tell(lambda client: client.raise_workflow_event(task_id, DECISION, data=data))

    def unpark(self, task_id: str) -> None:
        """Lets a parked task try its step again."""
        self._tell(lambda client: client.raise_workflow_event(task_id, RESUME, data=RESUMED))

    def begin(self, task_id: str) -> None:
        """Has Dapr run the first turn of a task that it has taken in and never begun. A daprd that is able to do so
        itself does it when it is asked for the task."""
        if self._needs(NEVER_BEGUN):
            self.wake(task_id)
        else:
            with contextlib.suppress(HistoryTampered):  # whoever reads it is told
                self.get(task_id)

    def wake(self, task_id: str) -> None:
        """Has Dapr run a turn of a task. The event says nothing to the task."""
        self._tell(lambda client: client.raise_workflow_event(task_id, WAKE, data={"wake": True}))

    def pause(self, task_id: str) -> None:
        """Suspends the task between two steps."""
        self._tell(lambda client: client.pause_workflow(task_id))

    def resume(self, task_id: str) -> None:
        """Ends a suspension."""
        self._tell(lambda client: client.resume_workflow(task_id))

    def terminate(self, task_id: str, reason: str) -> None:
        """Ends the task for good."""
        self._tell(lambda client: client.terminate_workflow(task_id, output={"reason": reason}))

    def _tell(self, call: Callable[[DaprWorkflowClient], None]) -> None:
        with self._words.place(), within(_WORD_SECONDS):
            self._ask(call)

    def _ask(self, call: Callable[[DaprWorkflowClient], Result]) -> Result:
        """Asks the sidecar; one that is just starting is waited for a moment, as long as the call cannot have
        changed anything."""
        for before in range(_TRIES):
            try:
                return call(self._client)
            except grpc.RpcError as error:
                if not self._may_pass(error, before) or not left(_PAUSE_SECONDS):
                    raise _explained(error) from None
                last = error
            self._pause(_PAUSE_SECONDS)
        raise _explained(last) from None

    def _may_pass(self, error: grpc.RpcError, before: int) -> bool:
        """The call never left; or it read an instance in the very moment in which its inbox was being emptied: a daprd
        without `TORN_READ` has read again itself by then. `before`: how often it was tried already."""
        details = str(error.details())
        if NOT_WHOLE in details:
            return before == 0 or self._needs(TORN_READ)
        return "failed to connect to all addresses" in details


class _AlreadyRunning(Exception):
    """Dapr has an active instance under this id."""


class _NotGenuine(Exception):
    """Dapr does not trust the history of this id."""


def _explained(error: grpc.RpcError) -> Exception:
    details = str(error.details())
    if "already exists" in details:
        return _AlreadyRunning()
    if any(sign in details for sign in (*NOT_GENUINE, NOT_WHOLE)):
        return _NotGenuine(details)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Silence(
            "the Dapr sidecar does not answer in time, and whether it has done what was asked is not known: "
            "look with `task show`; see `refund-agent doctor`"
        )
    return Unreachable(f"the Dapr sidecar does not answer ({details[:200]}); see `refund-agent doctor`")


def _standing(state: WorkflowState) -> Standing:
    at = state.last_updated_at.replace(tzinfo=UTC)
    status = _STATUSES.get(state.runtime_status.name)
    if status is None or not status.ended:
        return under_way(state.serialized_custom_status, at, status)
    failure = str(state.failure_details.message) if state.failure_details is not None else None
    return ended(status, at, state.serialized_output, failure)
