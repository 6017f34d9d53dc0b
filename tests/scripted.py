"""Runs the workflow without Dapr: a context whose activities and events are answered by a script."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dapr.ext.workflow._durabletask.task import CompletableTask

from app.domain.models import Frozen, Progress, TaskOutput, TaskStatus
from app.workflow.refund import refund_ticket
from app.workflow.steps import TaskInput

Answers = Callable[[str, Frozen], Frozen]


class Call(CompletableTask):  # type: ignore[misc]  # the SDK ships no types
    """One scheduled step."""

    def __init__(self, name: str, question: Any) -> None:
        super().__init__()
        self.name = name
        self.question = question


@dataclass
class Script:
    """The workflow's context: `answers` answers each step, `events` has an event for each wait (None: a time-out),
    which arrives after a minute. `calls`, `shown` and `waits` collect the steps, the shown statuses and the time
    limits."""

    answers: Answers
    events: list[dict[str, Any] | None] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    shown: list[Progress | None] = field(default_factory=list)
    waits: list[timedelta | None] = field(default_factory=list)
    pauses: list[timedelta] = field(default_factory=list)
    current_utc_datetime: datetime = datetime(2026, 11, 22, 12)  # noqa: DTZ001 - as the SDK has it

    is_replaying: bool = False
    patched: bool = True

    def is_patched(self, change: str) -> bool:
        """Whether changes of the workflow's code hold for the task."""
        return self.patched

    @property
    def instance_id(self) -> str:
        """The id that the workflow sees."""
        return "acme:T-1"

    def call_activity(self, name: str, *, input: Frozen, retry_policy: object) -> Call:  # noqa: A002 - the SDK's name
        """Schedules a step."""
        assert retry_policy is not None, "every step is retried slowly"
        self.calls.append(Call(name, input))
        return self.calls[-1]

    def create_timer(self, length: timedelta) -> timedelta:
        """Pauses."""
        self.pauses.append(length)
        return length

    def wait_for_external_event(self, name: str, *, timeout: timedelta | None = None) -> str:
        """Waits for an event."""
        self.waits.append(timeout)
        return name

    def set_custom_status(self, text: str) -> None:
        """Notes the shown status."""
        self.shown.append(Progress.model_validate_json(text) if text else None)

    @property
    def questions(self) -> list[Progress]:
        """The statuses in which a person was asked, the last one for each question."""
        waiting = [progress for progress in self.shown if progress and progress.status is TaskStatus.WAITING]
        return list({progress.question.number: progress for progress in waiting if progress.question}.values())

    def steps(self) -> list[str]:
        """The names of the scheduled steps, in order."""
        return [call.name for call in self.calls]


def run(script: Script, task: TaskInput) -> TaskOutput:
    """Runs the whole workflow against the script."""
    process = refund_ticket(script, task)
    try:
        waited_for = next(process)
        while True:
            waited_for = _answer(script, process, waited_for)
    except StopIteration as end:
        return TaskOutput.model_validate(end.value)


def _answer(script: Script, process: Generator[Any, Any, Any], waited_for: Any) -> Any:
    if isinstance(waited_for, timedelta):
        script.current_utc_datetime += waited_for
        return process.send(None)
    if not isinstance(waited_for, str):
        for call in script.calls:
            if not call.is_complete:
                call.complete(_json(script.answers(call.name, call.question)))
        return process.send(waited_for.get_result())
    script.current_utc_datetime += timedelta(minutes=1)
    event = script.events.pop(0)
    if event is None:
        return process.throw(TimeoutError())
    return process.send(event)


def _json(answer: Frozen) -> dict[str, Any]:
    return answer.model_dump(mode="json")
