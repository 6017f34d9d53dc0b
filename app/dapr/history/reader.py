"""Reads workflow histories from daprd over gRPC.

daprd verifies a history's signatures at each read, so a history from here is the signed one; any other raises
`HistoryTampered`. daprd answers only for instances of its own app.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos

from app.dapr import sidecar
from app.dapr.daprd import GRPC_WITHOUT_PROXY, Daprd
from app.dapr.history import entries
from app.dapr.history.model import Failure, Payload, RunStatus, WorkflowRun
from app.dapr.history.parse import parse
from app.dapr.workarounds import TORN_READ
from app.domain.errors import AttemptAlreadyFailed, ConfigurationError, HistoryTampered, TaskNotFound, Unreachable

PAGE_SIZE = 500
# The error type with which Dapr fails a run whose history was changed.
_TAMPERED = "DAPR_WORKFLOW_HISTORY_TAMPERED"
# daprd's errors for a history that is not the signed one. That includes a history without signatures: either a daprd
# without signing wrote it, or somebody removed the signatures, and there is no way to tell which.
NOT_GENUINE = (
    "signature verification failed",
    "possible tampering",
    "unsigned history events but signing is enabled",
    "failed to unmarshal",
)
# daprd's error for missing rows. daprd reads the number of rows first and then the rows, and a run that continues or is
# purged may save in between (`TORN_READ`). If the error persists, somebody removed the rows.
NOT_WHOLE = "missing from state store"
# daprd's errors for a signed history that it cannot verify, because signing is off or its own identity has changed.
_NOT_READABLE = ("signed history but no signer", "signed history but app ID", "signed history but namespace")
# By default gRPC pauses up to two minutes before it reconnects, and channels with equal options share that pause.
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),  # no limit: daprd limits the size of a history
    GRPC_WITHOUT_PROXY,
)
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """The status of one instance, without its history. `updated_at` changes with each event; while it has not changed,
    there is nothing new to read."""

    instance_id: str
    name: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    custom_status: Payload | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class InstancePage:
    """A page of instance ids. `next_token` is the token of the next page; None on the last one."""

    instance_ids: tuple[str, ...]
    next_token: str | None


class HistoryReader:
    """Reads histories and statuses of workflow instances from daprd. Thread-safe; close it after use.

    Each call raises Unreachable if daprd does not answer within `timeout_seconds`. A daprd that is unavailable, for
    example because it is starting, is asked again for `patience_seconds`.
    """

    def __init__(
        self,
        daprd: Daprd,
        *,
        timeout_seconds: float = 10.0,
        patience_seconds: float = 3.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Does not connect yet; the first call does."""
        self._daprd = daprd
        self._metadata = daprd.metadata
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._pause = pause
        self._channel = grpc.insecure_channel(daprd.grpc, options=_OPTIONS)
        self._stub = stubs.TaskHubSidecarServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> HistoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, instance_id: str) -> WorkflowRun:
        """Reads one verified run. Raises TaskNotFound, HistoryTampered."""
        return parse(instance_id, self.events(instance_id))

    def events(self, instance_id: str) -> tuple[Any, ...]:
        """The events of an instance as protobuf messages, in Dapr's order; empty if it is pending. Raises TaskNotFound,
        HistoryTampered."""
        request = protos.GetInstanceHistoryRequest(instanceId=instance_id)
        events = tuple(self._ask("GetInstanceHistory", request, instance_id).events)
        # The tampering verdict is not always the last event: if daprd 1.18.2 cannot save it at once, it keeps it in
        # memory and saves it with the next turn.
        for event in events:
            if event.executionCompleted.failureDetails.errorType == _TAMPERED:
                words = event.executionCompleted.failureDetails.errorMessage
                raise HistoryTampered(instance_id, words, entries.moment(event.timestamp))
        return events

    def scheduled_input(self, instance_id: str, event_id: int, execution_id: str) -> str | None:
        """The input of a step, as JSON; None if the history has no such step, which happens for a moment because daprd
        hands out a step before it saves the turn that schedules it. Raises TaskNotFound, HistoryTampered."""
        scheduled = _find_schedule(self.events(instance_id), event_id, execution_id)
        return None if scheduled is None else str(scheduled.input.value)

    def result(self, instance_id: str, event_id: int, execution_id: str) -> str | None:
        """The result of a completed step, as it was delivered; None if the step has not completed. Raises
        AttemptAlreadyFailed, TaskNotFound, HistoryTampered."""
        events = self.events(instance_id)
        if _find_schedule(events, event_id, execution_id) is None:
            return None  # the step belongs to another run under the same id
        if any(event.taskFailed.taskScheduledId == event_id for event in events if event.HasField("taskFailed")):
            raise AttemptAlreadyFailed(
                f"task {instance_id}: another execution of step {event_id} has failed this attempt, and the workflow "
                "has its failure; nothing to do"
            )
        completions = (event.taskCompleted for event in events if event.HasField("taskCompleted"))
        return next((end.result.value for end in completions if end.taskScheduledId == event_id), None)

    def status(self, instance_id: str) -> InstanceStatus:
        """The status of one instance. Raises TaskNotFound, HistoryTampered. daprd loads and verifies the whole history
        for this too, so it saves traffic but no work of daprd."""
        request = protos.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
        answer = self._ask("GetInstance", request, instance_id)
        if not answer.exists:
            raise _not_found(instance_id)
        return _status(answer.workflowState)

    def page(self, token: str | None = None, size: int = PAGE_SIZE) -> InstancePage:
        """A page of the app's instance ids, children included, in the order of Dapr's state store. SQLite lists the one
        saved last at the end, so an instance that continues between two pages may appear twice; none is missed."""
        request = protos.ListInstanceIDsRequest(continuationToken=token, pageSize=size)
        answer = self._ask("ListInstanceIDs", request, "")
        return InstancePage(tuple(answer.instanceIds), answer.continuationToken or None)

    def instance_ids(self, page_size: int = PAGE_SIZE) -> Iterator[str]:
        """All instance ids, each once."""
        seen: set[str] = set()
        token: str | None = None
        while True:
            page = self.page(token, page_size)
            for instance_id in page.instance_ids:
                if instance_id not in seen:
                    seen.add(instance_id)
                    yield instance_id
            token = page.next_token
            if token is None:
                return

    def _ask(self, method: str, request: Any, instance_id: str) -> Any:
        """Calls daprd. Retries errors that may pass until patience ends; reading has no side effects. A history that
        does not verify or lacks rows is read once more even after that: the run may have been restarted, or have
        continued, while daprd was reading."""
        deadline = time.monotonic() + self._patience
        doubts: set[str] = set()
        while True:
            try:
                return getattr(self._stub, method)(request, timeout=self._timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                new = _doubts(error) - doubts
                if not (new or (time.monotonic() <= deadline and self._may_pass(error))):
                    raise self._domain_error(error, instance_id) from None
                doubts |= new
            self._pause(_PAUSE_SECONDS)

    def _may_pass(self, error: grpc.RpcError) -> bool:
        if NOT_WHOLE in str(error.details()):
            return sidecar.needs(self._daprd, TORN_READ)  # a later daprd has repeated the read itself
        return error.code() is grpc.StatusCode.UNAVAILABLE

    def _domain_error(self, error: grpc.RpcError, instance_id: str) -> Exception:
        details = str(error.details())
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return _not_found(instance_id)
        if any(sign in details for sign in (*NOT_GENUINE, NOT_WHOLE)):
            return HistoryTampered(instance_id, details)
        if any(sign in details for sign in _NOT_READABLE):
            return ConfigurationError(f"{details}; switch WorkflowHistorySigning on again in config/dapr.yaml")
        return Unreachable(
            f"the Dapr sidecar at {self._daprd.grpc} does not give the workflow history "
            f"({error.code().name}: {details[:300]}); see `refund-agent doctor`"
        )


def _find_schedule(events: Iterable[Any], event_id: int, execution_id: str) -> Any | None:
    """The `taskScheduled` of a step; None if the history has none, or one of another run."""
    for event in events:
        if event.eventId == event_id and event.taskScheduled.taskExecutionId == execution_id:
            return event.taskScheduled
    return None


def _doubts(error: grpc.RpcError) -> set[str]:
    """The signs in an error that the history is not genuine or not whole; empty for any other error."""
    return {sign for sign in (*NOT_GENUINE, NOT_WHOLE) if sign in str(error.details())}


def _not_found(instance_id: str) -> TaskNotFound:
    return TaskNotFound(f"Dapr knows no workflow instance {instance_id}: it was purged, or never started in this app")


def _status(state: Any) -> InstanceStatus:
    return InstanceStatus(
        instance_id=state.instanceId,
        name=state.name,
        status=_run_status(state.workflowStatus),
        created_at=entries.moment(state.createdTimestamp),
        updated_at=entries.moment(state.lastUpdatedTimestamp),
        custom_status=entries.payload(state, "customStatus"),
        failure=entries.failure(state.failureDetails) if state.HasField("failureDetails") else None,
    )


def _run_status(number: int) -> RunStatus:
    name = protos.OrchestrationStatus.Name(number)
    return RunStatus(name.removeprefix("ORCHESTRATION_STATUS_").lower())
