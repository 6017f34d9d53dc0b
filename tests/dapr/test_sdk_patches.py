"""The patches of the SDK, and that an SDK which needs no patch is not patched."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from dapr.aio.clients import DaprClient
from dapr.clients.health import DaprHealth
from dapr.ext.workflow._durabletask import worker as sdk
from dapr.ext.workflow._durabletask.internal import protos, shared

from app.dapr import sdk_patches
from app.dapr.workarounds import PATCHED, Version

# As it is installed: no module that is imported here patches when it is imported.
HEALTH = staticmethod(DaprHealth.wait_for_sidecar)
PATCHES: dict[str, tuple[Callable[[], None], object, str]] = {
    "pauses": (sdk_patches.survive_pauses, sdk, "_is_suspendable"),
    "events": (sdk_patches.survive_events, sdk._OrchestrationExecutor, "process_event"),
    "names": (sdk_patches.name_steps_by_place, sdk._RuntimeOrchestrationContext, "new_guid"),
    "reconnection": (sdk_patches.reconnect_quickly, shared, "DEFAULT_GRPC_KEEPALIVE_OPTIONS"),
    "health": (sdk_patches.skip_health_checks, DaprHealth, "wait_for_sidecar"),
}


def step_names(instance_id: str, run_id: str, *, at: datetime = datetime(2026, 11, 22, tzinfo=UTC)) -> list[uuid.UUID]:
    """The names of the first three steps of a run, in a turn at that time."""
    sdk_patches.name_steps_by_place()
    sdk_patches._run_id.set(run_id)
    context = sdk._RuntimeOrchestrationContext(instance_id)
    context.current_utc_datetime = at
    return [context.new_guid() for _ in range(3)]


def test_a_step_has_the_same_name_in_every_turn() -> None:
    first = step_names("acme:T-1", "run-1")
    later = step_names("acme:T-1", "run-1", at=datetime(2026, 11, 23, tzinfo=UTC))
    assert first == later
    assert len(set(first)) == 3


def test_without_the_patch_its_name_changes_with_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_patches.name_steps_by_place()
    context = sdk._RuntimeOrchestrationContext
    monkeypatch.setattr(context, "new_guid", context.new_guid.unpatched)
    monkeypatch.setattr(sdk_patches, "name_steps_by_place", lambda: None)
    first, later = (step_names("acme:T-1", "run-1", at=datetime(2026, 11, day, tzinfo=UTC)) for day in (22, 23))
    assert first != later


def test_names_differ_between_tasks_and_between_runs() -> None:
    runs = [step_names("acme:T-1", "run-1"), step_names("acme:T-1", "run-2"), step_names("acme:T-2", "run-1")]
    assert len({name for names in runs for name in names}) == 9


def test_making_a_client_does_not_check_the_sidecars_health(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def healthy(*given: object, **_: object) -> Any:
        asked.append(given)
        return contextlib.nullcontext(SimpleNamespace(status=200))

    async def make() -> None:
        await DaprClient("127.0.0.1:1").close()

    monkeypatch.setattr("urllib.request.urlopen", healthy)
    monkeypatch.setattr(DaprHealth, "wait_for_sidecar", HEALTH)  # put back afterwards
    asyncio.run(make())
    assert asked, "without the patch"
    asked.clear()
    sdk_patches.skip_health_checks()
    asyncio.run(make())
    assert asked == []


def test_the_run_id_is_that_of_the_start_event_at_any_place() -> None:
    started = protos.HistoryEvent(executionStarted=protos.ExecutionStartedEvent(name="w"))
    started.executionStarted.workflowInstance.executionId.value = "run-7"
    turn = protos.HistoryEvent(workflowStarted=protos.WorkflowStartedEvent())
    for past, new in (([], [turn, started]), ([turn, started], [turn])):
        assert sdk_patches.run_id_of(protos.WorkflowRequest(pastEvents=past, newEvents=new)) == "run-7"
    assert sdk_patches.run_id_of(protos.WorkflowRequest(newEvents=[turn])) == ""


@pytest.mark.parametrize("name", PATCHES)
@pytest.mark.parametrize("version", [PATCHED.least, None, PATCHED.below])
def test_a_patch_is_applied_only_where_it_is_needed(
    name: str, version: Version | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    patched = version != PATCHED.below
    patch, holder, attribute = PATCHES[name]
    installed = getattr(holder, attribute)
    installed = getattr(installed, "unpatched", installed)
    monkeypatch.setattr(holder, attribute, staticmethod(installed) if name == "health" else installed)
    monkeypatch.setattr(sdk_patches, "sdk_version", lambda: version)
    patch()
    assert (getattr(holder, attribute) is not installed) == patched
    assert bool(caplog.records) == (not patched), "an untested patch that is off is logged"


@pytest.mark.parametrize("name", ["pauses", "events", "names", "reconnection"])
def test_an_sdk_without_the_patched_code_is_not_patched(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    patch, _, attribute = PATCHES[name]
    for module in ("sdk", "shared"):
        other_sdk = SimpleNamespace(_OrchestrationExecutor=object, _RuntimeOrchestrationContext=object)
        monkeypatch.setattr(sdk_patches, module, other_sdk)
    patch()
    (message,) = (record.message for record in caplog.records)
    assert attribute in message
