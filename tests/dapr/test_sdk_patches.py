"""What is mended of the SDK."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from dapr.aio.clients import DaprClient
from dapr.clients.health import DaprHealth
from dapr.ext.workflow._durabletask import worker as sdk
from dapr.ext.workflow._durabletask.internal import protos

from app.dapr import sdk_patches


def named(instance_id: str, run_id: str, *, at: datetime = datetime(2026, 11, 22, tzinfo=UTC)) -> list[uuid.UUID]:
    """The first three steps of a run, as the SDK asks for their names in a turn at that time."""
    sdk_patches.name_steps_by_place()
    sdk_patches._run_id.set(run_id)
    context = SimpleNamespace(instance_id=instance_id, current_utc_datetime=at)
    return [sdk._RuntimeOrchestrationContext.new_guid(context) for _ in range(3)]


def test_a_step_has_the_same_name_in_whatever_turn_it_is_asked_for() -> None:
    first = named("acme:T-1", "run-1")
    later = named("acme:T-1", "run-1", at=datetime(2026, 11, 23, tzinfo=UTC))
    assert first == later
    assert len(set(first)) == 3


def test_another_task_and_another_run_of_it_have_names_of_their_own() -> None:
    runs = [named("acme:T-1", "run-1"), named("acme:T-1", "run-2"), named("acme:T-2", "run-1")]
    assert len({name for names in runs for name in names}) == 9


def test_a_client_is_made_without_asking_a_sidecar_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **_: asked.append(given))
    monkeypatch.setattr(DaprHealth, "wait_for_sidecar", DaprHealth.wait_for_sidecar)  # put back afterwards
    sdk_patches.ask_for_no_health()

    async def make() -> None:
        await DaprClient("127.0.0.1:1").close()

    asyncio.run(make())
    assert asked == []


def test_a_run_is_named_by_its_start_wherever_that_stands() -> None:
    started = protos.HistoryEvent(executionStarted=protos.ExecutionStartedEvent(name="w"))
    started.executionStarted.workflowInstance.executionId.value = "run-7"
    turn = protos.HistoryEvent(workflowStarted=protos.WorkflowStartedEvent())
    for past, new in (([], [turn, started]), ([turn, started], [turn])):
        assert sdk_patches.run_id_of(protos.WorkflowRequest(pastEvents=past, newEvents=new)) == "run-7"
    assert sdk_patches.run_id_of(protos.WorkflowRequest(newEvents=[turn])) == ""
