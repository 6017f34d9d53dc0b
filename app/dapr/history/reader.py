"""The only I/O of this room: asks daprd for histories over its gRPC port.

daprd verifies a history's signatures each time that it reads it, so what comes back from here is what was signed; what
is not raises `HistoryTampered`. daprd answers for its own app's instances alone.
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
from app.dapr.daprd import PAST_PROXIES, Daprd
from app.dapr.history import entries
from app.dapr.history.model import Failure, Payload, RunStatus, WorkflowRun
from app.dapr.history.parse import parse
from app.dapr.workarounds import TORN_READ
from app.domain.errors import ConfigurationError, HistoryTampered, StepOver, TaskNotFound, Unreachable

PAGE_SIZE = 500
# What Dapr writes when it gives up a run whose history it found changed.
_TAMPERED = "DAPR_WORKFLOW_HISTORY_TAMPERED"
# What daprd says when it reads a history that is not the signed one. One without any signature was written by a daprd
# that did not sign, or its signatures were taken away: nobody can tell, so it proves nothing either.
NOT_GENUINE = (
    "signature verification failed",
    "possible tampering",
    "unsigned history events but signing is enabled",
    "failed to unmarshal",
)
# Rows that should be there are not: daprd reads their number first and the rows then, and a run that goes on, or is
# purged, may save in between (`TORN_READ`). When it stays so, somebody took them away.
NOT_WHOLE = "missing from state store"
_NOT_READABLE = ("signed history but no signer", "signed history but app ID", "signed history but namespace")
# gRPC waits up to two minutes before it tries a lost sidecar again, and channels with equal options share that wait.
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),  # a history is as large as daprd lets it become
    PAST_PROXIES,
)
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance without its history. `updated_at` changes with each event, so it tells whether to read again."""

    instance_id: str
    name: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    custom_status: Payload | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class InstancePage:
    """Some instance ids, and how to ask for those that follow; `next_token` None at the end."""

    instance_ids: tuple[str, ...]
    next_token: str | None


class HistoryReader:
    """Reads what Dapr keeps of workflow instances. Thread-safe; close it when done.

    Each call raises Unreachable when daprd does not answer within `timeout_seconds`; one that is just starting is
    waited for during `patience_seconds`.
    """

    def __init__(
        self,
        daprd: Daprd,
        *,
        timeout_seconds: float = 10.0,
        patience_seconds: float = 3.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects at the first question."""
        self._daprd = daprd
        self._metadata = daprd.metadata
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._pause = pause
        self._channel = grpc.insecure_channel(daprd.grpc, options=_OPTIONS)
        self._stub = stubs.TaskHubSidecarServiceStub(self._channel)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> HistoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, instance_id: str) -> WorkflowRun:
        """One run, verified. Raises TaskNotFound, HistoryTampered."""
        return parse(instance_id, self.events(instance_id))

    def events(self, instance_id: str) -> tuple[Any, ...]:
        """The events themselves, as protobuf messages in Dapr's order; none for an instance that is pending. Raises
        TaskNotFound, HistoryTampered."""
        request = protos.GetInstanceHistoryRequest(instanceId=instance_id)
        events = tuple(self._ask("GetInstanceHistory", request, instance_id).events)
        # Not always the last event: a marker that daprd 1.18.2 could not save at once stays in its memory, and is saved
        # with the turn that follows.
        for event in events:
            if event.executionCompleted.failureDetails.errorType == _TAMPERED:
                words = event.executionCompleted.failureDetails.errorMessage
                raise HistoryTampered(instance_id, words, entries.moment(event.timestamp))
        return events

    def asked(self, instance_id: str, event_id: int, execution_id: str) -> str | None:
        """What a step was asked, as JSON; None as long as the history has no such step: daprd hands it out a moment
        before it saves the turn that asks for it. Raises TaskNotFound, HistoryTampered."""
        scheduled = _scheduled(self.events(instance_id), event_id, execution_id)
        return None if scheduled is None else str(scheduled.input.value)

    def result(self, instance_id: str, event_id: int, execution_id: str) -> str | None:
        """What a step came to that is completed, as it was delivered; None for one that is not. Raises StepOver for
        one that has failed, TaskNotFound, HistoryTampered."""
        known = self.events(instance_id)
        if _scheduled(known, event_id, execution_id) is None:
            return None  # of another run under the same id
        if any(event.taskFailed.taskScheduledId == event_id for event in known if event.HasField("taskFailed")):
            raise StepOver(f"task {instance_id}: this attempt has failed elsewhere; the workflow knows")
        done = (event.taskCompleted for event in known if event.HasField("taskCompleted"))
        return next((completion.result.value for completion in done if completion.taskScheduledId == event_id), None)

    def status(self, instance_id: str) -> InstanceStatus:
        """Where one instance is. Raises TaskNotFound, HistoryTampered: daprd loads and verifies the whole history for
        this too, so it spares bytes, not daprd's work."""
        request = protos.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
        answer = self._ask("GetInstance", request, instance_id)
        if not answer.exists:
            raise _not_found(instance_id)
        return _status(answer.workflowState)

    def page(self, token: str | None = None, size: int = PAGE_SIZE) -> InstancePage:
        """Some instance ids of the app, children included. Dapr's order is that of its state store: with SQLite the
        one saved last comes last, so an instance that moves on between two pages is seen twice, and none is missed."""
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
        """Reading changes nothing, so a question that may be answered in a moment is put again until patience ends. A
        history that does not verify, or is not whole, is read once more however long the first reading took: it may
        have begun anew, or gone on, in the middle of daprd's reading."""
        deadline = time.monotonic() + self._patience
        doubts: set[str] = set()
        while True:
            try:
                return getattr(self._stub, method)(request, timeout=self._timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                new = _doubts(error) - doubts
                if not (new or (time.monotonic() <= deadline and self._may_pass(error))):
                    raise self._explained(error, instance_id) from None
                doubts |= new
            self._pause(_PAUSE_SECONDS)

    def _may_pass(self, error: grpc.RpcError) -> bool:
        if NOT_WHOLE in str(error.details()):
            return sidecar.needs(self._daprd, TORN_READ)  # a later one has read again itself
        return error.code() is grpc.StatusCode.UNAVAILABLE

    def _explained(self, error: grpc.RpcError, instance_id: str) -> Exception:
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


def _scheduled(events: Iterable[Any], event_id: int, execution_id: str) -> Any | None:
    """What asks for a step; None where the history has no such step, or another run's."""
    for event in events:
        if event.eventId == event_id and event.taskScheduled.taskExecutionId == execution_id:
            return event.taskScheduled
    return None


def _doubts(error: grpc.RpcError) -> set[str]:
    """What makes a history doubtful; nothing, for any other trouble."""
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
