"""Recorded histories, replayed with today's workflow: an upgrade does not leave running tasks behind.

What fails here would park tasks that are at work when the new version is deployed. Guard the change by a patch
(`Steps.patched`), and record histories that pass it (`python -m tests.replay.record NAME`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dapr.ext.workflow._durabletask.internal import protos

from app import bootstrap
from app.dapr.daprd import Daprd
from app.worker.worker import Worker
from app.workflow import refund
from app.workflow.activities.close_case import CloseInput
from app.workflow.steps import Steps, TaskInput
from tests.replay.record import FOLDER, read
from tests.worker.test_worker import Noted, Well

HISTORIES = sorted(FOLDER.rglob("*.pb.gz"))
# What a turn adds to its history, and the action that asks for it; everything else it is told.
ASKED_BY = {
    "taskScheduled": "scheduleTask",
    "timerCreated": "createTimer",
    "executionCompleted": "completeWorkflow",
}


def turns(events: list[Any]) -> Iterator[tuple[Any, list[tuple[str, int, str]]]]:
    """Each turn as daprd asked for it, and what it came to."""
    starts = [place for place, event in enumerate(events) if event.HasField("workflowStarted")]
    for start, end in pairwise([*starts, len(events)]):
        item = protos.WorkItem(completionToken="t")
        item.workflowRequest.instanceId = "bench:recorded"
        item.workflowRequest.pastEvents.extend(events[:start])
        turn = [(event, event.WhichOneof("eventType")) for event in events[start:end]]
        item.workflowRequest.newEvents.extend(event for event, kind in turn if kind not in ASKED_BY)
        yield (
            item,
            [(ASKED_BY[kind], event.eventId, event.taskScheduled.name) for event, kind in turn if kind in ASKED_BY],
        )


def replayed(events: list[Any]) -> Iterator[tuple[list[tuple[str, int, str]], list[tuple[str, int, str]], str]]:
    """What each turn comes to today and came to then, and what the task says of itself."""
    nobody: Any = Noted(), Well()
    worker = Worker(Daprd("", "127.0.0.1:1", ""), 1, lambda *_: None, *nobody)
    worker.register_workflow(bootstrap._workflow(), name=refund.NAME)
    for item, then in turns(events):
        answer = worker.loop.turns.answer(item)
        now = [(each.WhichOneof("workflowActionType"), each.id, each.scheduleTask.name) for each in answer.actions]
        yield now, then, answer.customStatus.value


def recorded(name: str) -> list[Any]:
    """The history of that name in the oldest version."""
    return read(next(file for file in HISTORIES if file.name == f"{name}.pb.gz"))


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: f"{file.parent.name}-{file.name.partition('.')[0]}")
def test_every_turn_comes_to_what_it_came_to_then(file: Path) -> None:
    seen = list(replayed(read(file)))
    for now, then, said in seen:
        assert now == then, said
    assert [kind for kind, _, _ in seen[-1][0]] == ["completeWorkflow"]


def test_there_is_one_of_each_way_through_the_workflow() -> None:
    assert {file.name.partition(".")[0] for file in HISTORIES} == {
        "answered",
        "refunded",
        "approved",
        "rejected",
        "refused-then-approved",
        "parked",
        "retried",
    }


def test_a_change_without_a_patch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is = refund._carry_out

    def carried_out(steps: Steps, task: TaskInput, *more: Any) -> Generator[Any, Any, Any]:
        yield from refund._retrieve_account(steps, task, True)
        return (yield from as_it_is(steps, task, *more))

    monkeypatch.setattr(refund, "_carry_out", carried_out)
    assert "does not fit what this task has done" in [said for _, _, said in replayed(recorded("refunded"))][-1]


def test_a_step_that_asks_for_more_than_was_recorded_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a field without a default in what a step came to would."""
    monkeypatch.setattr(refund, "CloseOutput", CloseInput)
    assert "raised ValidationError" in [said for _, _, said in replayed(recorded("refunded"))][-1]
