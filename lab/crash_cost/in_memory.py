"""Runs a process to its end in memory: what its steps say is kept nowhere, so a crash takes all of it.

The workflow's own code is what runs; only Dapr's part is missing. A step that fails ends the process with its error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from types import SimpleNamespace
from typing import Any

from dapr.ext.workflow._durabletask.task import CompletableTask

from app.domain.models import Frozen

Step = Callable[[Any, Any], Awaitable[Frozen]]


class NeedsPerson(Exception):
    """The process waits for a person's decision, which nobody gives here."""


class _Call(CompletableTask):  # type: ignore[misc]  # the SDK ships no types
    """One step that the process has asked for."""

    def __init__(self, name: str, question: Frozen) -> None:
        super().__init__()
        self.name = name
        self.question = question


class Memory:
    """Stands in for Dapr's workflow context: notes what the process asks for."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.calls: list[_Call] = []

    def call_activity(self, name: str, *, input: Frozen, retry_policy: object) -> _Call:  # noqa: A002 - the SDK's name
        """Notes a step."""
        self.calls.append(_Call(name, input))
        return self.calls[-1]

    async def asked(self, _task_id: str, number: int, _execution_id: str) -> str:
        """What a step was asked, as a history would have it."""
        return self.calls[number].question.model_dump_json()

    def set_custom_status(self, text: str) -> None:
        """Nobody looks."""

    def wait_for_external_event(self, name: str, **_: object) -> None:
        """Nobody is asked. Raises NeedsPerson."""
        raise NeedsPerson(f"{self.instance_id} waits for {name}")

    async def answer(self, steps: Mapping[str, Step]) -> None:
        """Works what has been asked for since the last time, side by side."""
        asked = [(number, call) for number, call in enumerate(self.calls) if not call.is_complete]
        answers = await asyncio.gather(*[self._worked(number, call, steps) for number, call in asked])
        for (_, call), said in zip(asked, answers, strict=True):
            call.complete(said.model_dump(mode="json"))

    async def _worked(self, number: int, call: _Call, steps: Mapping[str, Step]) -> Frozen:
        inner = SimpleNamespace(task_execution_id=f"{self.instance_id}/{number}")
        context = SimpleNamespace(workflow_id=self.instance_id, task_id=number, get_inner_context=lambda: inner)
        return await steps[call.name](context, call.question)


async def run(process: Generator[Any, Any, Any], memory: Memory, steps: Mapping[str, Step]) -> Any:
    """What the process returns. `process` was made with `memory` as its context."""
    try:
        waited_for = next(process)
        while True:
            await memory.answer(steps)
            waited_for = process.send(waited_for.get_result())
    except StopIteration as end:
        return end.value
