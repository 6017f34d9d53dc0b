"""The product's worker with a stop-watch around each model call; `bare` leaves out all that the record needs.

python -m lab.bench.overhead.worker whole|bare FILE     writes FILE when it is told to stop
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
# When it ended, how long it took in all, how long of that it was with the sidecar; seconds.
Timing = tuple[float, float, float]

_timings: list[Timing] = []
_inner: contextvars.ContextVar[list[float]] = contextvars.ContextVar("inner")


class TimedConversation(DaprConversation):
    """Notes how long the sidecar took."""

    async def ask(self, messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...]) -> Answer:
        """As it is."""
        begun = time.monotonic()
        try:
            return await super().ask(messages, tools)
        finally:
            _inner.get().append(time.monotonic() - begun)


class TimedGateway(LLMGateway):
    """Notes how long a model call took in all."""

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """As it is."""
        begun, inner = time.monotonic(), list[float]()
        _inner.set(inner)  # the gateway's own task inherits the list
        answer = await super().ask(call)
        ended = time.monotonic()
        _timings.append((ended, ended - begun, sum(inner)))
        return answer


class Unwritten(Journal):
    """A journal that keeps nothing."""

    async def begin(
        self, call: ModelCall, component: str, provider: str, reserve: Reserve, *_: Any, **__: Any
    ) -> str | SettledCall:
        """Never finds anything."""
        return str(uuid.uuid4())

    async def settle(
        self, call_id: str, call: ModelCall, answer: Answer, usage: TokenUsage, provider: str
    ) -> SettledCall:
        """Hands the answer back."""
        return SettledCall(answer, usage)

    async def fail(self, call_id: str, error: ModelUnavailable | ModelRefused, provider: str) -> None:
        """Forgets it."""


class NotNoted(Executions):
    """Executions that nobody writes down."""

    @asynccontextmanager
    async def start(self, attempt: StepAttempt) -> AsyncIterator[None]:
        """Lets the work begin."""
        yield

    async def lose(self, only: StepAttempt | None = None) -> None:
        """Nothing."""


class Idle:
    """Stands in for the projector, the sidecar watch and whatever else only the record needs: does nothing."""

    waiting = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def start(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def hint(self, task_id: str, *, ended: bool) -> None:
        """Nothing."""

    def provider(self, component: str) -> str:
        """Not known."""
        return ""

    def observe(self, record: object) -> None:
        """Nothing."""

    def render(self) -> bytes:
        """Nothing."""
        return b""


def main(kind: str, file: Path) -> None:
    """Serves until told to stop."""
    parts: dict[str, type] = {"DaprConversation": TimedConversation, "ModelGateway": TimedGateway}
    if kind == BARE:
        parts |= {
            "Journal": Unwritten,
            "Executions": NotNoted,
            "Projector": Idle,
            "SidecarWatch": Idle,
            "Telemetry": Idle,
        }
    for name, part in parts.items():
        assert hasattr(bootstrap, name), f"{name} is not put together there any more"  # noqa: S101
        setattr(bootstrap, name, part)
    bootstrap.serve(settings.load())
    file.write_text(json.dumps(_timings))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
