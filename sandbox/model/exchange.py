"""A question to the model and its answer, independent of the provider's protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from app.llm import tokenizer

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "tool_calls", "length"]


class BadRequest(ValueError):
    """A request that violates the protocol; the message says what to change."""


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


def make_call(name: str, arguments: Mapping[str, Any], turn: int) -> ToolCall:
    """A call whose id is the same for the same call in the same turn."""
    digest = hashlib.sha256(f"{turn} {name} {sorted(arguments.items())}".encode()).hexdigest()
    return ToolCall(f"call_{digest[:24]}", name, json.dumps(arguments))


@dataclass(frozen=True)
class Message:
    """One message. A tool's result is a message with the role `tool` and the id of its call."""

    role: Role
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    cache_here: bool = False  # the client marks the end of a prefix to cache


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call. `definition` is its compact JSON, whose tokens are counted."""

    name: str
    definition: str


@dataclass(frozen=True)
class Question:
    """One request to the model."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    max_output_tokens: int | None = None
    schema: dict[str, Any] | None = None  # a JSON schema that the answer has to fit
    forced_tool: str = ""  # the tool that the answer has to call
    reasons: bool = False  # the model reasons before it answers, and bills its thoughts

    def text_of(self, role: Role) -> str:
        """The texts of all messages of a role, joined by blank lines."""
        return "\n\n".join(message.text for message in self.messages if message.role == role)

    @property
    def stage(self) -> str:
        """The stage in the first line of the system message; empty if there is none."""
        first_line = self.text_of("system").lstrip().partition("\n")[0]
        name, _, stage = first_line.partition(":")
        return stage.strip()[:40] if name.strip().lower() == "stage" else ""


@dataclass(frozen=True)
class Answer:
    """A text or tool calls. `thoughts` are billed if the model reasons, but never sent."""

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


def shorten(answer: Answer, max_output_tokens: int | None) -> Answer:
    """The answer with its text cut to at most `max_output_tokens`; tool calls are short and stay whole."""
    if max_output_tokens is None or tokenizer.count(answer.text) <= max_output_tokens:
        return answer
    kept = tokenizer.encoding().encode_ordinary(answer.text)[:max_output_tokens]
    return replace(answer, text=tokenizer.encoding().decode(kept), cut_short=True)


def check_tool_turns(messages: Sequence[Message]) -> None:
    """Raises BadRequest unless each tool call is directly followed by its result, and each result has its call."""
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
