"""What the Dapr workflow SDK (1.18.3) does wrong or offers no option for, mended from outside: defects that would lose
or repeat work, and defaults that would make it slow."""

from __future__ import annotations

import contextlib
import contextvars
import uuid
from itertools import chain
from typing import Any

from dapr.ext.workflow._durabletask import worker as sdk
from dapr.ext.workflow._durabletask.internal import shared

_STEPS = uuid.UUID("6f1d3f3e-5f0a-5c7e-9d53-1f0f4d0c7a10")
_run_id: contextvars.ContextVar[str] = contextvars.ContextVar("run_id", default="")

_ASKED = frozenset({"taskScheduled", "timerCreated", "childWorkflowInstanceCreated", "eventSent"})


def survive_pauses() -> None:
    """When a pause and a step's completion arrive in one turn, the next step is scheduled behind the pause. The SDK
    then holds its own schedule back as if it came from outside, writes it again in each turn, and fails the
    workflow as non-deterministic at resume. What a workflow has asked for itself is therefore never held back."""
    suspendable = sdk._is_suspendable
    if getattr(suspendable, "asks_nothing", False):
        return

    def comes_from_outside(event: Any) -> bool:
        return event.WhichOneof("eventType") not in _ASKED and bool(suspendable(event))

    comes_from_outside.asks_nothing = True  # type: ignore[attr-defined]
    sdk._is_suspendable = comes_from_outside


def name_steps_by_place() -> None:
    """The SDK names a step by the time of the turn that asks for it. daprd hands steps out before it saves the
    turn; one that dies in between runs the turn again, at another time, and the same step comes under a second name:
    nobody recognises it, and its model call is paid twice. So a step is named by its place in its run."""

    def new_guid(context: Any) -> uuid.UUID:
        context._uuid_counter = place = getattr(context, "_uuid_counter", 0) + 1
        return uuid.uuid5(_STEPS, f"{context.instance_id}|{_run_id.get()}|{place}")

    sdk._RuntimeOrchestrationContext.new_guid = new_guid


def begin_turn(request: Any) -> None:
    """Says which run the turn belongs to that is about to be executed in this context."""
    _run_id.set(run_id_of(request))


def run_id_of(request: Any) -> str:
    """Names one run of an instance: another begins when the same id is started anew, or continued as new."""
    for event in chain(request.pastEvents, request.newEvents):  # it is the second one, mostly
        if event.HasField("executionStarted"):
            return str(event.executionStarted.workflowInstance.executionId.value)
    return ""


def reconnect_quickly() -> None:
    """gRPC waits up to two minutes before it tries a lost sidecar again, and all connections with equal options share
    that wait. The SDK offers no option for it, so its defaults are extended before the first connection is made."""
    pause = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1_000))
    shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS = (*shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS, *pause)


def trace_nothing() -> None:
    """The SDK wraps every gRPC call in a span as soon as OpenTelemetry's instrumentation is installed, also when nobody
    collects them: a fifth of the worker's CPU time. The product does not bring it; whoever installed it for something
    else does not pay for it. Spans of our own are made where they say something."""
    with contextlib.suppress(ImportError):
        from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient

        GrpcInstrumentorClient().uninstrument()
