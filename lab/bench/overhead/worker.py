"""The product's worker, which times each model call. `bare` leaves out the parts that only the record needs.

python -m lab.bench.overhead.worker whole|bare FILE     writes the timings to FILE when it stops
"""

from __future__ import annotations

import contextvars
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app import bootstrap
from app.config import settings
from app.domain.errors import ModelRefused, ModelUnavailable
from app.llm.call import ModelCall, Reserve
from app.llm.conversation import Answer, DaprConversation, Message, ToolDefinition
from app.llm.gateway import LLMGateway, ModelAnswer
from app.llm.journal import Journal, SettledCall
from app.pricing.charge_types import TokenUsage
from app.worker.execution_log import Executions, StepAttempt

WHOLE, BARE = "whole", "bare"
# A model call: its end (monotonic clock), its whole duration, and the sidecar's part of that; seconds.
Timing = tuple[float, float, float]

_timings: list[Timing] = []
_inner: contextvars.ContextVar[list[float]] = contextvars.ContextVar("inner")


class TimedConversation(DaprConversation):
    """Times the sidecar's part of each model call."""

    async def ask(
        self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...], schema: dict[str, Any] | None = None
    ) -> Answer:
        """As in the base class."""
        started = time.monotonic()
        try:
            return await super().ask(messages, tools, schema)
        finally:
            _inner.get().append(time.monotonic() - started)


class TimedGateway(LLMGateway):
    """Times each model call as a whole."""

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """As in the base class."""
        started, inner = time.monotonic(), list[float]()
        _inner.set(inner)  # the gateway's own task inherits the list
        answer = await super().ask(call)
        ended = time.monotonic()
        _timings.append((ended, ended - started, sum(inner)))
        return answer


class EmptyJournal(Journal):
    """A journal that stores nothing."""

    async def begin(
        self, call: ModelCall, component: str, provider: str, reserve: Reserve, *_: Any, **__: Any
    ) -> str | SettledCall:
        """Returns a new call id, since no earlier call is stored."""
        return str(uuid.uuid4())

    async def settle(
        self, call_id: str, call: ModelCall, answer: Answer, usage: TokenUsage, provider: str
    ) -> SettledCall:
        """Returns the answer."""
        return SettledCall(answer, usage)

    async def fail(self, call_id: str, error: ModelUnavailable | ModelRefused, provider: str) -> None:
        """Stores nothing."""


class NoExecutionLog(Executions):
    """An execution log that stores nothing."""

    @asynccontextmanager
    async def start(self, attempt: StepAttempt) -> AsyncIterator[None]:
        """Starts the work."""
        yield

    async def lose(self, only: StepAttempt | None = None) -> None:
        """Does nothing."""


class Idle:
    """Replaces a part that only the record needs, such as the projector, and does nothing."""

    waiting = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def start(self) -> None:
        """Does nothing."""

    def stop(self) -> None:
        """Does nothing."""

    def hint(self, task_id: str, *, ended: bool) -> None:
        """Does nothing."""

    def provider(self, component: str) -> str:
        """No provider is known."""
        return ""

    def observe(self, record: object) -> None:
        """Does nothing."""

    def render(self) -> bytes:
        """Does nothing."""
        return b""


def main(kind: str, file: Path) -> None:
    """Serves until it is stopped, then writes the timings to `file`."""
    parts: dict[str, type] = {"DaprConversation": TimedConversation, "LLMGateway": TimedGateway}
    if kind == BARE:
        parts |= {
            "Journal": EmptyJournal,
            "Executions": NoExecutionLog,
            "Projector": Idle,
            "SidecarWatch": Idle,
            "Telemetry": Idle,
        }
    for name, part in parts.items():
        assert hasattr(bootstrap, name), f"app.bootstrap has no {name} to replace"  # noqa: S101
        setattr(bootstrap, name, part)
    bootstrap.serve(settings.load())
    file.write_text(json.dumps(_timings))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
