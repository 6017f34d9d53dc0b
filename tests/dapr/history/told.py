"""Builds histories by hand: protobuf events in Dapr's order, with times in seconds after `T0`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dapr.ext.workflow._durabletask.internal import attestation_pb2, protos

T0 = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
NEVER = 253402300799


def at(seconds: float) -> datetime:
    """That many seconds after `T0`."""
    return T0 + timedelta(seconds=seconds)


class Told:
    """A history under construction. Each method adds one event; `events` are those that Dapr would return."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def add(self, seconds: float | None, event_id: int = -1, **kind: Any) -> Told:
        """Any event; without a time if `seconds` is None."""
        event = protos.HistoryEvent(eventId=event_id, **kind)
        if seconds is not None:
            event.timestamp.FromDatetime(at(seconds))
        self.events.append(event)
        return self

    def turn(self, seconds: float, app: str = "", **version: Any) -> Told:
        """A turn starts."""
        body = protos.WorkflowStartedEvent()
        if version:
            body.version.CopyFrom(protos.WorkflowVersion(**version))
        self.add(seconds, workflowStarted=body)
        if app:
            self.events[-1].router.sourceAppID = app
        return self

    def started(self, seconds: float = 0, name: str = "w", app: str = "agent", **more: Any) -> Told:
        """The run is requested; `text` is its input."""
        body = protos.ExecutionStartedEvent(name=name, workflowInstance=protos.WorkflowInstance(instanceId="i"))
        body.workflowInstance.executionId.value = "generation"
        _texts(body, input=more.pop("text", None), version=more.pop("version", None))
        body.MergeFrom(protos.ExecutionStartedEvent(**more))
        self.add(seconds, executionStarted=body)
        self.events[-1].router.sourceAppID = app
        return self

    def scheduled(
        self, seconds: float, event_id: int, name: str = "a", key: str = "k", text: str | None = None, app: str = ""
    ) -> Told:
        """An activity is scheduled, in `app` if that is another one."""
        body = protos.TaskScheduledEvent(name=name, taskExecutionId=key)
        self.add(seconds, event_id, taskScheduled=_texts(body, input=text))
        self.events[-1].router.sourceAppID = "agent"
        if app:
            self.events[-1].router.targetAppID = app
        return self

    def completed(self, seconds: float, of: int, text: str | None = None, signer: bytes = b"") -> Told:
        """An activity completes; `signer` is the digest of the certificate that attests the result."""
        body = protos.TaskCompletedEvent(taskScheduledId=of)
        if signer:
            payload = attestation_pb2.ActivityCompletionAttestationPayload(signerCertDigest=signer)
            body.attestation.payload = payload.SerializeToString()
        return self.add(seconds, taskCompleted=_texts(body, result=text))

    def failed(self, seconds: float, of: int, kind: str = "RuntimeError", message: str = "no") -> Told:
        """An activity fails."""
        return self.add(
            seconds, taskFailed=protos.TaskFailedEvent(taskScheduledId=of, failureDetails=details(kind, message))
        )

    def child(self, seconds: float, event_id: int, instance_id: str = "i:0001", name: str = "c") -> Told:
        """A child workflow is scheduled."""
        body = protos.ChildWorkflowInstanceCreatedEvent(instanceId=instance_id, name=name)
        return self.add(seconds, event_id, childWorkflowInstanceCreated=body)

    def child_completed(self, seconds: float, of: int, text: str | None = None) -> Told:
        """A child completes."""
        body = protos.ChildWorkflowInstanceCompletedEvent(taskScheduledId=of)
        return self.add(seconds, childWorkflowInstanceCompleted=_texts(body, result=text))

    def child_failed(self, seconds: float, of: int, message: str = "no") -> Told:
        """A child fails."""
        failed = protos.ChildWorkflowInstanceFailedEvent(taskScheduledId=of, failureDetails=details("E", message))
        return self.add(seconds, childWorkflowInstanceFailed=failed)

    def timer(self, seconds: float, event_id: int, due: float | None = 60, **origin: Any) -> Told:
        """A timer is set, with an origin, a `name` as in older SDKs, or neither; it never fires if `due` is None."""
        body = protos.TimerCreatedEvent(**origin)
        if due is None:
            body.fireAt.seconds, body.fireAt.nanos = NEVER, 999_999_999
        else:
            body.fireAt.FromDatetime(at(due))
        return self.add(seconds, event_id, timerCreated=body)

    def waits(self, seconds: float, event_id: int, name: str, due: float | None = None) -> Told:
        """The code waits for an external event."""
        return self.timer(seconds, event_id, due, externalEvent=protos.TimerOriginExternalEvent(name=name))

    def pauses(self, seconds: float, event_id: int, due: float, key: str = "k") -> Told:
        """The pause before a retry starts."""
        return self.timer(seconds, event_id, due, activityRetry=protos.TimerOriginActivityRetry(taskExecutionId=key))

    def fired(self, seconds: float, of: int) -> Told:
        """A timer fires."""
        return self.add(seconds, timerFired=protos.TimerFiredEvent(timerId=of))

    def raised(self, seconds: float | None, name: str, text: str | None = None) -> Told:
        """An external event arrives."""
        return self.add(seconds, eventRaised=_texts(protos.EventRaisedEvent(name=name), input=text))

    def suspended(self, seconds: float, reason: str | None = None) -> Told:
        """The run is suspended."""
        return self.add(seconds, executionSuspended=_texts(protos.ExecutionSuspendedEvent(), input=reason))

    def resumed(self, seconds: float) -> Told:
        """The run is resumed."""
        return self.add(seconds, executionResumed=protos.ExecutionResumedEvent())

    def stalled(self, seconds: float, reason: int = 1, description: str = "") -> Told:
        """The run stalls."""
        return self.add(seconds, executionStalled=protos.ExecutionStalledEvent(reason=reason, description=description))

    def ended(self, seconds: float, event_id: int = 99, status: int = 1, text: str | None = None, **more: Any) -> Told:
        """The run ends."""
        body = protos.ExecutionCompletedEvent(workflowStatus=status, **more)
        return self.add(seconds, event_id, executionCompleted=_texts(body, result=text))


def details(kind: str, message: str) -> Any:
    """Failure details with a stack trace, as Dapr keeps them."""
    return _texts(protos.TaskFailureDetails(errorType=kind, errorMessage=message), stackTrace="File x, line 1")


def _texts(body: Any, **texts: str | None) -> Any:
    for field, text in texts.items():
        if text is not None:
            getattr(body, field).value = text
    return body
