"""What is asked of the gateway, and what a call uses: values only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from app.domain.models import UsageBasis
from app.llm.conversation import Message, ToolDefinition


@dataclass(frozen=True)
class ModelCall:
    """One question: who asks (tenant, task, stage, turn, the step's `taskExecutionId`), in which wording, and what."""

    tenant: str
    task_id: str
    stage: str
    turn: int
    execution_id: str
    prompt_version: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()

    @cached_property  # the journal and the answer both name it
    def digest(self) -> str:
        """Names the question's content: equal questions have equal digests."""
        said = [
            (
                message.role,
                message.text,
                [vars(call) for call in message.tool_calls],
                message.tool_call_id,
                message.name,
            )
            for message in self.messages
        ]
        offered = [vars(tool) for tool in self.tools]
        return hashlib.sha256(json.dumps([said, offered], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reserve:
    """What a call may use at most, in tokens, before it is known."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Usage:
    """What a call used, in tokens, and how that is known; `None` is not known. `input_tokens` includes cached ones,
    `output_tokens` includes reasoning."""

    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    known: UsageBasis
