"""Anthropic's messages protocol: parses requests, builds answers and errors.

It follows the public API as the official client and Dapr's `conversation.anthropic` use it: no streaming, text and
tools only. Like the real server, it requires `max_tokens`, and an object as `tool_choice`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, ValidationError

from sandbox.model.counting import AnthropicCounting, Counting, Usage
from sandbox.model.exchange import Answer, BadRequest, Message, Question, Role, Tool, ToolCall, check_tool_turns
from sandbox.model.openai import sentence

NAME = "anthropic"
COUNTING: Counting = AnthropicCounting()
_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class _Block(BaseModel):
    cache_control: dict[str, Any] | None = None


class _Text(_Block):
    type: Literal["text"]
    text: str


class _ToolUse(_Block):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class _ToolResult(_Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[_Text] = ""
    is_error: bool = False


_AnyBlock = Annotated[_Text | _ToolUse | _ToolResult, Discriminator("type")]


class _Message(BaseModel):
    role: Literal["user", "assistant"]
    content: str | list[_AnyBlock]


class _Tool(_Block):
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: dict[str, Any]


class _ToolChoice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class _Request(BaseModel):
    model: str = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    messages: list[_Message] = Field(min_length=1)
    system: str | list[_Text] = ""
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: dict[str, Any] | None = None
    stream: bool = False


def read(body: bytes) -> Question:
    """Parses a request. Raises BadRequest, which names the field and its error."""
    try:
        request = _Request.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(sentence(error)) from error
    if request.stream:
        raise BadRequest("stream: this server does not stream; send stream=false")
    turns = tuple(flat for message in request.messages for flat in _flat(message))
    check_tool_turns(turns)
    no_tools = request.tool_choice is not None and request.tool_choice.type == "none"
    return Question(
        model=request.model,
        messages=(*_system(request.system), *turns),
        tools=() if no_tools else tuple(_tools(request.tools or ())),
        forced_tool=request.tool_choice.name if request.tool_choice else "",
        max_output_tokens=request.max_tokens,
        reasons=(request.thinking or {}).get("type") == "enabled",
    )


def _system(system: str | list[_Text]) -> Iterator[Message]:
    if system:
        marked = isinstance(system, list) and _marked(system)
        yield Message("system", _joined(system), cache_here=marked)


def _flat(message: _Message) -> Iterator[Message]:
    """The message as internal ones, in order: one for each tool result, one for each group of other blocks."""
    if isinstance(message.content, str):
        yield Message(message.role, message.content)
        return
    for are_results, group in groupby(message.content, lambda block: isinstance(block, _ToolResult)):
        blocks = list(group)
        yield from _results(blocks) if are_results else _said(message.role, blocks)


def _results(blocks: Iterable[_AnyBlock]) -> Iterator[Message]:
    for block in blocks:
        if isinstance(block, _ToolResult):
            marked = block.cache_control is not None
            yield Message("tool", _joined(block.content), tool_call_id=block.tool_use_id, cache_here=marked)


def _said(role: Role, blocks: list[_AnyBlock]) -> Iterator[Message]:
    texts = [block for block in blocks if isinstance(block, _Text)]
    uses = (block for block in blocks if isinstance(block, _ToolUse))
    calls = tuple(ToolCall(use.id, use.name, _compact(use.input)) for use in uses)
    yield Message(role, _joined(texts), calls, cache_here=_marked(blocks))


def _marked(blocks: Iterable[_Block]) -> bool:
    return any(block.cache_control is not None for block in blocks)


def _joined(content: str | list[_Text]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _tools(tools: Iterable[_Tool]) -> Iterator[Tool]:
    for tool in tools:
        yield Tool(tool.name, _compact(tool.model_dump(exclude={"cache_control"})))


def write(answer: Answer, usage: Usage, *, model: str, number: int, created: int) -> dict[str, object]:
    """The response body of an answer; `number` is its row in the bill. The protocol has no field for `created`."""
    del created
    content: list[dict[str, object]] = [{"type": "text", "text": answer.text}] if answer.text else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
        for call in answer.tool_calls
    ]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": _STOP_REASONS[answer.finish],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input - usage.cached - usage.cache_written,
            "cache_creation_input_tokens": usage.cache_written,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.output,
        },
    }


def error(status: int, message: str) -> dict[str, object]:
    """The response body of an error."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def models(names: Iterable[str], created: int) -> dict[str, object]:
    """The response body of GET /v1/models."""
    at = datetime.fromtimestamp(created, UTC).isoformat()
    rows = [{"type": "model", "id": name, "display_name": name, "created_at": at} for name in names]
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"data": rows, "has_more": False, "first_id": first, "last_id": last}
