"""Patches of the Dapr workflow SDK: defects that would lose or repeat work, and defaults that would make it slow and
that it has no option for. Each is a row of `workarounds`, and is applied only to an SDK that needs it and that it was
written for."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import uuid
from collections.abc import Callable
from itertools import chain
from typing import Any

from dapr.clients.health import DaprHealth
from dapr.conf import settings
from dapr.ext.workflow._durabletask import worker as sdk
from dapr.ext.workflow._durabletask.internal import protos, shared

from app.dapr import workarounds
from app.dapr.daprd import PAST_PROXIES
from app.dapr.sdk_version import sdk_version
from app.dapr.workarounds import Workaround

log = logging.getLogger(__name__)

_STEPS = uuid.UUID("6f1d3f3e-5f0a-5c7e-9d53-1f0f4d0c7a10")
_run_id: contextvars.ContextVar[str] = contextvars.ContextVar("run_id", default="")

# What a workflow has asked for itself, and a pause: the SDK must not hold these back while a workflow is paused.
_NEVER_HELD = frozenset(
    {"taskScheduled", "timerCreated", "childWorkflowInstanceCreated", "eventSent", "executionSuspended"}
)


def _works_around(workaround: Workaround) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Makes a patch one that leaves an SDK alone which does not need it, or whose code is another one."""

    def only_where_needed(patch: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(patch)
        def apply() -> None:
            version = sdk_version()
            if workarounds.untried(workaround, version):
                log.warning("Python SDK %s: not patched (%s): never tried with it", version, workaround.name)
            if not workarounds.needed(workaround, version):
                return
            try:
                patch()
            except AttributeError as error:
                log.error("Python SDK %s: not patched (%s): %s", version or "unknown", workaround.name, error)

        return apply

    return only_where_needed


@_works_around(workarounds.PAUSES)
def survive_pauses() -> None:
    """When a pause and a step's completion arrive in one turn, the next step is scheduled behind the pause. The SDK
    then holds its own schedule back as if it came from outside, writes it again in each turn, and fails the
    workflow as non-deterministic at resume. A second pause is held back as well; at resume it pauses the workflow
    again while the held events are being worked off, each of them is held back anew, and that goes on for ever."""
    suspendable = sdk._is_suspendable
    if hasattr(suspendable, "unpatched"):
        return

    def held_back(event: Any) -> bool:
        return event.WhichOneof("eventType") not in _NEVER_HELD and bool(suspendable(event))

    held_back.unpatched = suspendable  # type: ignore[attr-defined]
    sdk._is_suspendable = held_back


@_works_around(workarounds.EVENTS)
def survive_events() -> None:
    """Three things that anybody may send, and that break a workflow in the SDK: a resume of one that is not paused
    fails it; so does an event whose payload is not JSON, whatever its name; and one that arrives behind a terminate
    lets it go on, so that a step may be scheduled for a task that has ended."""
    process = sdk._OrchestrationExecutor.process_event
    if hasattr(process, "unpatched"):
        return

    def process_event(executor: Any, context: Any, event: Any) -> None:
        kind = event.WhichOneof("eventType")
        if _has_ended(context) or (kind == "executionResumed" and not executor._is_suspended):
            return
        if kind == "eventRaised" and not _readable(event.eventRaised.input.value):
            event = _without_payload(event)
        process(executor, context, event)

    process_event.unpatched = process  # type: ignore[attr-defined]
    sdk._OrchestrationExecutor.process_event = process_event


def _has_ended(context: Any) -> bool:
    """One that continues as new has not: it carries events over to its next run."""
    continued = protos.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
    return bool(context._is_complete) and context._completion_status != continued


def _readable(payload: str) -> bool:
    try:
        return not payload or shared.from_json(payload) is not None
    except Exception:  # whatever a payload from outside makes the decoder do: no JSON, too deep, too long a number
        return False


def _without_payload(event: Any) -> Any:
    bare = protos.HistoryEvent()
    bare.CopyFrom(event)
    bare.eventRaised.ClearField("input")
    return bare


@_works_around(workarounds.STEP_NAMES)
def name_steps_by_place() -> None:
    """The SDK names a step by the time of the turn that asks for it. daprd hands steps out before it saves the
    turn; one that dies in between runs the turn again, at another time, and the same step comes under a second name:
    nobody recognises it, and its model call is paid twice. So a step is named by its place in its run."""

    named_by_time = sdk._RuntimeOrchestrationContext.new_guid
    if hasattr(named_by_time, "unpatched"):
        return

    def new_guid(context: Any) -> uuid.UUID:
        context._uuid_counter = place = getattr(context, "_uuid_counter", 0) + 1
        return uuid.uuid5(_STEPS, f"{context.instance_id}|{_run_id.get()}|{place}")

    new_guid.unpatched = named_by_time  # type: ignore[attr-defined]
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


@_works_around(workarounds.RECONNECTING)
def reconnect_quickly() -> None:
    """gRPC waits up to two minutes before it tries a lost sidecar again, all connections with equal options share that
    wait, and a proxy of the environment is asked for loopback too. The SDK offers no option for any of it, so its
    defaults are extended before the first connection is made."""
    pause = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1_000))
    shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS = (*shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS, *pause, PAST_PROXIES)


def use_token(token: str) -> None:
    """The SDK's clients take the sidecar's token from its own settings alone, each when it is made. No patch: that is
    the option it has."""
    settings.DAPR_API_TOKEN = token or None


@_works_around(workarounds.HEALTH)
def ask_for_no_health() -> None:
    """The SDK's client asks a sidecar for its health when it is made: on the event loop, without a time limit for one
    that stands still, and through the machine's proxies. Whoever makes a client has asked before, with all of that."""
    DaprHealth.wait_for_sidecar = staticmethod(lambda: None)


@_works_around(workarounds.SPANS)
def trace_nothing() -> None:
    """The SDK wraps every gRPC call in a span as soon as OpenTelemetry's instrumentation is installed, also when nobody
    collects them: a fifth of the worker's CPU time. The product does not bring it; whoever installed it for something
    else does not pay for it. Spans of our own are made where they say something."""
    with contextlib.suppress(ImportError):
        from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient

        GrpcInstrumentorClient().uninstrument()
