"""Puts one model call to the model and says how it was answered. Stages come here and nowhere else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from app.gateway.conversation import Answer, Conversation, Message, ToolDefinition
from app.models import ModelUse


@dataclass(frozen=True)
class ModelCall:
    """One question: who asks (task, stage, turn, the step's `taskExecutionId`) and what."""

    task_id: str
    stage: str
    turn: int
    execution_id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()

    @property
    def digest(self) -> str:
        """Names the question's content: equal questions have equal digests."""
        content = [[asdict(part) for part in self.messages], [asdict(part) for part in self.tools]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ModelAnswer:
    """The answer and what it used; only `use` may travel into history."""

    answer: Answer
    use: ModelUse


class ModelGateway:
    """The only way to a model."""

    def __init__(self, conversation: Conversation, component: str) -> None:
        self._conversation = conversation
        self._component = component

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """Asks once. Raises ModelUnavailable (worth a retry) or ModelRefused (not)."""
        answer = await self._conversation.ask(call.messages, call.tools)
        use = ModelUse(
            component=self._component,
            model=answer.model,
            request_digest=call.digest,
            input_tokens=answer.usage.input_tokens,
            cached_tokens=answer.usage.cached_tokens,
            output_tokens=answer.usage.output_tokens,
            reasoning_tokens=answer.usage.reasoning_tokens,
        )
        return ModelAnswer(answer, use)
