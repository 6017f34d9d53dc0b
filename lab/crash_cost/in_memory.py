"""Runs the code of a workflow in memory, without Dapr: nothing is stored, so a crash loses everything.

A step that fails ends the workflow with its error.
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
    """The workflow waits for a person's decision, which does not exist in memory."""


class _Call(CompletableTask):  # type: ignore[misc]  # the SDK ships no types
    """One step that the workflow has scheduled."""

    def __init__(self, name: str, question: Frozen) -> None:
        super().__init__()
        self.name = name
        self.question = question


class Memory:
    """Replaces Dapr's workflow context: collects the steps that the workflow schedules."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.calls: list[_Call] = []

    def call_activity(self, name: str, *, input: Frozen, retry_policy: object) -> _Call:  # noqa: A002 - the SDK's name
        """Schedules a step."""
        self.calls.append(_Call(name, input))
        return self.calls[-1]

    async def scheduled_input(self, _task_id: str, number: int, _execution_id: str) -> str:
        """The input of a step, as the history would have it."""
        return self.calls[number].question.model_dump_json()

    def set_custom_status(self, text: str) -> None:
        """Ignores the status."""

    def wait_for_external_event(self, name: str, **_: object) -> None:
        """Raises NeedsPerson."""
        raise NeedsPerson(f"{self.instance_id} waits for {name}")

    async def run_steps(self, steps: Mapping[str, Step]) -> None:
        """Runs the steps that were scheduled since the last call, in parallel."""
        open_calls = [(number, call) for number, call in enumerate(self.calls) if not call.is_complete]
        results = await asyncio.gather(*[self._run_step(number, call, steps) for number, call in open_calls])
        for (_, call), result in zip(open_calls, results, strict=True):
            call.complete(result.model_dump(mode="json"))

    async def _run_step(self, number: int, call: _Call, steps: Mapping[str, Step]) -> Frozen:
        inner = SimpleNamespace(task_execution_id=f"{self.instance_id}/{number}")
        context = SimpleNamespace(workflow_id=self.instance_id, task_id=number, get_inner_context=lambda: inner)
        return await steps[call.name](context, call.question)


async def run(process: Generator[Any, Any, Any], memory: Memory, steps: Mapping[str, Step]) -> Any:
    """Runs a workflow to its end and returns its result. `process` must have been made with `memory` as its context."""
    try:
        task = next(process)
        while True:
            await memory.run_steps(steps)
            task = process.send(task.get_result())
    except StopIteration as end:
        return end.value
