"""Patches of Dapr's workflow SDK: for defects that lose or repeat work, and for slow defaults that have no option.

Each patch is a row of `workarounds`. It is applied only to SDK versions that need it and that it was tested with.
"""

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
from app.dapr.daprd import GRPC_WITHOUT_PROXY
from app.dapr.sdk_version import sdk_version
from app.dapr.workarounds import Workaround

log = logging.getLogger(__name__)

_STEPS = uuid.UUID("6f1d3f3e-5f0a-5c7e-9d53-1f0f4d0c7a10")
_run_id: contextvars.ContextVar[str] = contextvars.ContextVar("run_id", default="")

# What the workflow itself scheduled, and a pause. The SDK must not hold these back while a workflow is paused.
_NEVER_HELD = frozenset(
    {"taskScheduled", "timerCreated", "childWorkflowInstanceCreated", "eventSent", "executionSuspended"}
)


def _works_around(workaround: Workaround) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Decorates a patch: it is skipped if the installed SDK does not need it, or lacks the code that it patches."""

    def only_where_needed(patch: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(patch)
        def apply() -> None:
            version = sdk_version()
            if workarounds.is_untested(workaround, version):
                log.warning(
                    "Python SDK %s: not patched (%s): the patch was never tested with this version",
                    version,
                    workaround.name,
                )
            if not workarounds.is_needed(workaround, version):
                return
            try:
                patch()
            except AttributeError as error:
                log.error("Python SDK %s: not patched (%s): %s", version or "unknown", workaround.name, error)

        return apply

    return only_where_needed


@_works_around(workarounds.PAUSES)
def survive_pauses() -> None:
    """Keeps the SDK from holding back a paused workflow's own schedules and a second pause.

    If a pause and a step's completion arrive in one turn, the next step is scheduled behind the pause. The SDK holds
    that schedule back as if it came from outside, writes it again in each turn, and at resume fails the workflow as
    non-deterministic. A second pause is held back too: at resume it pauses the workflow while the held events are
    processed, they are held back anew, and the turn never ends.
    """
    suspendable = sdk._is_suspendable
    if hasattr(suspendable, "unpatched"):
        return

    def is_suspendable(event: Any) -> bool:
        return event.WhichOneof("eventType") not in _NEVER_HELD and bool(suspendable(event))

    is_suspendable.unpatched = suspendable  # type: ignore[attr-defined]
    sdk._is_suspendable = is_suspendable


@_works_around(workarounds.EVENTS)
def survive_events() -> None:
    """Makes three inputs from outside harmless. Unpatched, a workflow fails if it is resumed without being paused, or
    gets an event whose payload is not JSON; and an event behind a terminate lets it continue, so a step may be
    scheduled for a task that has ended."""
    process = sdk._OrchestrationExecutor.process_event
    if hasattr(process, "unpatched"):
        return

    def process_event(executor: Any, context: Any, event: Any) -> None:
        kind = event.WhichOneof("eventType")
        if _has_ended(context) or (kind == "executionResumed" and not executor._is_suspended):
            return
        if kind == "eventRaised" and not _is_readable(event.eventRaised.input.value):
            event = _without_payload(event)
        process(executor, context, event)

    process_event.unpatched = process  # type: ignore[attr-defined]
    sdk._OrchestrationExecutor.process_event = process_event


def _has_ended(context: Any) -> bool:
    """Whether the workflow has ended. One that continues as new has not: it carries events over to its next run."""
    continued = protos.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
    return bool(context._is_complete) and context._completion_status != continued


def _is_readable(payload: str) -> bool:
    try:
        return not payload or shared.from_json(payload) is not None
    except Exception:  # the payload comes from outside: not JSON, nested too deeply, a number that is too long
        return False


def _without_payload(event: Any) -> Any:
    copy = protos.HistoryEvent()
    copy.CopyFrom(event)
    copy.eventRaised.ClearField("input")
    return copy


@_works_around(workarounds.STEP_NAMES)
def name_steps_by_place() -> None:
    """Names a step by its place in its run instead of by the time of the turn that schedules it.

    daprd hands out steps before it saves the turn. If it dies in between, the turn is run again at another time, and
    the same step gets a second name: neither history nor journal recognises it, and its model call is paid twice.
    """
    guid_by_time = sdk._RuntimeOrchestrationContext.new_guid
    if hasattr(guid_by_time, "unpatched"):
        return

    def new_guid(context: Any) -> uuid.UUID:
        context._uuid_counter = place = getattr(context, "_uuid_counter", 0) + 1
        return uuid.uuid5(_STEPS, f"{context.instance_id}|{_run_id.get()}|{place}")

    new_guid.unpatched = guid_by_time  # type: ignore[attr-defined]
    sdk._RuntimeOrchestrationContext.new_guid = new_guid


def begin_turn(request: Any) -> None:
    """Sets the run of the turn that is about to be executed in this context; `name_steps_by_place` reads it."""
    _run_id.set(run_id_of(request))


def run_id_of(request: Any) -> str:
    """Dapr's id of the run that a turn belongs to; empty if the request does not hold the run's start. An instance gets
    a new run when its id is started again or continued as new."""
    for event in chain(request.pastEvents, request.newEvents):  # mostly the second event
        if event.HasField("executionStarted"):
            return str(event.executionStarted.workflowInstance.executionId.value)
    return ""


@_works_around(workarounds.RECONNECTING)
def reconnect_quickly() -> None:
    """Limits gRPC's pause before it reconnects to a lost sidecar to a second, and bypasses proxies.

    By default the pause is up to two minutes, connections with equal options share it, and the environment's proxy is
    used for loopback too. The SDK has no option for this, so its defaults are extended; call this before the first
    connection is made.
    """
    backoff = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1_000))
    shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS = (*shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS, *backoff, GRPC_WITHOUT_PROXY)


def use_token(token: str) -> None:
    """Sets the sidecar's token for SDK clients that are made after this. Not a patch: the SDK's clients read the token
    only from this setting."""
    settings.DAPR_API_TOKEN = token or None


@_works_around(workarounds.HEALTH)
def skip_health_checks() -> None:
    """Removes the health check that the SDK makes for each new client. It blocks the event loop, without a limit if
    the sidecar is frozen, and goes through the machine's proxies. The agent has checked the sidecar itself by then."""
    DaprHealth.wait_for_sidecar = staticmethod(lambda: None)


@_works_around(workarounds.SPANS)
def disable_grpc_spans() -> None:
    """Switches off the SDK's span around each gRPC call. If OpenTelemetry's gRPC instrumentation is installed, the SDK
    makes these spans even without a collector, which takes a fifth of the worker's CPU time. The agent makes its own
    spans in `app/telemetry`."""
    with contextlib.suppress(ImportError):
        from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient

        GrpcInstrumentorClient().uninstrument()
