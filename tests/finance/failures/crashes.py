"""Random tasks whose workers are lost: stories, with made-up rows of the workers' execution logs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from app.dapr.history.executions import StartedExecution
from app.dapr.history.model import Attempt, Step, WorkflowRun
from app.ledger.recording.projection import Written, project
from app.ledger.store.task_record import TaskRecord
from tests.ledger.kit import MODELS, NAMING, two_currencies
from tests.ledger.stories import Story, story

TENANTS = ("acme", "globex", "lumen")


def tales(seed: int, count: int) -> list[Story]:
    """Random tasks of three tenants."""
    ids = [f"{TENANTS[(seed + number) % len(TENANTS)]}:T-{number}" for number in range(count)]
    return [story(seed * 100 + number, task_id, MODELS) for number, task_id in enumerate(ids)]


def records_of(tale: Story, dice: random.Random) -> Iterator[TaskRecord]:
    """The task's record at one or two moments; the last one is usually its end."""
    executions = list(_executions(tale.end.run, dice))
    turns = sorted({dice.randrange(len(tale.turns)), len(tale.turns) - 1 if dice.random() < 0.8 else 0})
    for turn in turns:
        known = tale.at(turn)
        visible = [execution for execution in executions if execution.started_at <= known.moment]
        yield project(known.run, Written(known.calls, visible), two_currencies(), NAMING, known.moment)


def _executions(run: WorkflowRun, dice: random.Random) -> Iterator[StartedExecution]:
    """Execution log rows: some attempts are handed out more than once; a death loses all executions in progress."""
    deaths = sorted(_moment(run, dice) for _ in range(dice.randint(0, 12)))
    for step in run.steps:
        for attempt in step.attempts:
            if dice.random() < 0.2:
                yield from _handed_out(step, attempt, dice)
            elif deaths:
                yield from _until_dead(step, attempt, deaths, dice)


def _moment(run: WorkflowRun, dice: random.Random) -> datetime:
    """A random moment within an attempt."""
    attempt = dice.choice(dice.choice(run.steps).attempts)
    return attempt.scheduled_at + _length(attempt) * dice.random()


def _length(attempt: Attempt) -> timedelta:
    return (attempt.ended_at or attempt.scheduled_at + timedelta(seconds=2)) - attempt.scheduled_at


def _until_dead(
    step: Step, attempt: Attempt, deaths: list[datetime], dice: random.Random
) -> Iterator[StartedExecution]:
    """Consecutive executions, each started some time after the previous one was lost."""
    started_at, end = attempt.scheduled_at, attempt.scheduled_at + _length(attempt)
    number = 1
    for death in [moment for moment in deaths if attempt.scheduled_at < moment < end]:
        if death > started_at:
            yield StartedExecution(
                step.execution_id, attempt.event_id, number, f"w-{number}", started_at, seen_at=death
            )
            started_at, number = death + (end - death) * dice.random(), number + 1
    yield StartedExecution(step.execution_id, attempt.event_id, number, f"w-{number}", started_at)


def _handed_out(step: Step, attempt: Attempt, dice: random.Random) -> Iterator[StartedExecution]:
    length = _length(attempt)
    times = sorted(attempt.scheduled_at + length * dice.random() for _ in range(dice.choice([1, 2, 2, 3])))
    for number, started_at in enumerate(times, start=1):
        seen = started_at + timedelta(seconds=dice.uniform(-1, 3))
        lost = started_at + length * dice.random()
        yield StartedExecution(
            step.execution_id,
            attempt.event_id,
            number,
            dice.choice(["w-1", "w-2"]),
            started_at,
            lost_at=lost if dice.random() < 0.2 else None,
            seen_at=seen if dice.random() < 0.7 else None,
        )
