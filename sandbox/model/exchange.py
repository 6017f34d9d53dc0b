"""What a model is asked and what it answers, free of any provider's protocol; values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.llm import tokenizer

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "tool_calls", "length"]


class BadRequest(ValueError):
    """A request that the protocol does not allow; the message says what to change."""


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model asks for. `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One message. A tool's result is a message of role tool that names its call."""

    role: Role
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    cache_here: bool = False  # the client marks the end of a prefix that is worth caching


@dataclass(frozen=True)
class Tool:
    """A tool that the model may ask for. `definition` is its compact JSON, as it is counted."""

    name: str
    definition: str


@dataclass(frozen=True)
class Question:
    """One request to the model."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    max_output_tokens: int | None = None
    reasons: bool = False  # the model thinks before it answers, and bills its thoughts

    def text_of(self, role: Role) -> str:
        """The texts of all messages of a role, joined by blank lines."""
        return "\n\n".join(message.text for message in self.messages if message.role == role)

    @property
    def stage(self) -> str:
        """The stage named in the first line of the system message, or nothing."""
        first_line = self.text_of("system").lstrip().partition("\n")[0]
        name, _, stage = first_line.partition(":")
        return stage.strip()[:40] if name.strip().lower() == "stage" else ""


@dataclass(frozen=True)
class Answer:
    """What the model says: a text or tool calls. `thoughts` are billed when the model reasons, never sent."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thoughts: str = ""
    cut_short: bool = False

    @property
    def finish(self) -> Finish:
        """Why the model stopped."""
        if self.cut_short:
            return "length"
        return "tool_calls" if self.tool_calls else "stop"


def shortened(answer: Answer, max_output_tokens: int | None) -> Answer:
    """The answer, cut to at most so many tokens of text; tool calls are short and stay whole."""
    if max_output_tokens is None or tokenizer.count(answer.text) <= max_output_tokens:
        return answer
    kept = tokenizer.encoding().encode_ordinary(answer.text)[:max_output_tokens]
    return replace(answer, text=tokenizer.encoding().decode(kept), cut_short=True)


def check_tool_turns(messages: Sequence[Message]) -> None:
    """Every tool call is answered right behind it, and nothing else is; raises BadRequest otherwise."""
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise BadRequest(f"tool result '{message.tool_call_id}' answers no tool call right before it")
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            raise BadRequest(f"tool call '{min(open_calls)}' has no tool result; send one message for each call")
        open_calls = {call.id for call in message.tool_calls}
    if open_calls:
        raise BadRequest(f"tool call '{min(open_calls)}' has no tool result; send one message for each call")
