"""OpenAI's chat completions protocol: parses requests, builds answers and errors.

It follows the public API as the official client and Dapr's `conversation.openai` use it: no streaming, one choice, text
only. Fields without an effect here (temperature, response_format, metadata) are accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from sandbox.model.counting import Counting, OpenAICounting, Usage
from sandbox.model.exchange import Answer, BadRequest, Message, Question, Role, Tool, ToolCall, check_tool_turns

NAME = "openai"
COUNTING: Counting = OpenAICounting()
_REASONING_MODEL = re.compile(r"^(o\d|gpt-5)")
_NO_REASONING = ("none", "minimal")
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_ERRORS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


class _Part(BaseModel):
    type: Literal["text", "refusal"]
    text: str = ""


class _Function(BaseModel):
    name: str
    arguments: str


class _Call(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: _Function


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str = ""


class _ToolFunction(BaseModel):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(BaseModel):
    type: Literal["function"]
    function: _ToolFunction


class _JsonSchema(BaseModel):
    schema_: dict[str, Any] = Field(alias="schema")


class _ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _Request(BaseModel):
    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: str | None = None
    response_format: _ResponseFormat | None = None
    stream: bool | None = None
    n: Literal[1] | None = None


def read(body: bytes) -> Question:
    """Parses a request. Raises BadRequest, which names the field and its error."""
    try:
        request = _Request.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(sentence(error)) from error
    if request.stream:
        raise BadRequest("stream: this server does not stream; send stream=false")
    messages = tuple(_message(message) for message in request.messages)
    check_tool_turns(messages)
    return Question(
        model=request.model,
        messages=messages,
        tools=() if request.tool_choice == "none" else tuple(_tools(request.tools or ())),
        schema=_schema(request.response_format),
        max_output_tokens=request.max_completion_tokens or request.max_tokens,
        reasons=bool(_REASONING_MODEL.match(request.model)) and request.reasoning_effort not in _NO_REASONING,
    )


def _schema(response_format: _ResponseFormat | None) -> dict[str, Any] | None:
    wanted = response_format and response_format.json_schema
    return wanted.schema_ if wanted else None


def sentence(error: ValidationError) -> str:
    """The first error of a request, with its field."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def _message(message: _Message) -> Message:
    calls = tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ())
    return Message(_ROLES[message.role], _text(message.content), calls, message.tool_call_id)


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part.text for part in content)
    return content or ""


def _tools(tools: Iterable[_Tool]) -> Iterable[Tool]:
    for tool in tools:
        yield Tool(tool.function.name, json.dumps(tool.function.model_dump(), separators=(",", ":")))


def write(answer: Answer, usage: Usage, *, model: str, number: int, created: int) -> dict[str, object]:
    """The response body of an answer; `number` is its row in the bill, `created` is in Unix seconds."""
    message: dict[str, object] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}],
        "usage": _usage(usage),
        "service_tier": "default",
    }


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def error(status: int, message: str) -> dict[str, object]:
    """The response body of an error."""
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def models(names: Iterable[str], created: int) -> dict[str, object]:
    """The response body of GET /v1/models."""
    rows = [{"id": name, "object": "model", "created": created, "owned_by": "sandbox"} for name in names]
    return {"object": "list", "data": rows}
