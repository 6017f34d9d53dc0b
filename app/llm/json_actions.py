"""Tools for models whose Dapr component cannot pass them on: the request describes the tools in words, and the model
asks for them with a JSON object, which is read as if it were a native tool call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.llm.json_answer import InvalidAnswer, json_object

_KEY = "tool_calls"
_OFFER = """
Tools: to use one or more, answer with this JSON object and nothing else, and wait for the results:
{{"tool_calls": [{{"name": the tool's name, "arguments": a JSON object that fits its schema}}]}}
{tools}
"""
_RESULT = "Result of {name} ({id}):\n{result}"


def tools_as_text(messages: Iterable[Message], tools: Iterable[ToolDefinition]) -> tuple[Message, ...]:
    """The same conversation without native tools: the system message offers them, earlier calls and results are text.
    Adjacent messages of one role are merged, since some providers insist that roles alternate."""
    offer = _OFFER.format(tools="\n".join(_definition(tool) for tool in tools))
    turns = groupby(_plain(messages, offer), key=lambda message: message.role)
    return tuple(Message(role, "\n\n".join(message.text for message in turn)) for role, turn in turns)


def _plain(messages: Iterable[Message], offer: str) -> Iterator[Message]:
    for message in messages:
        match message.role:
            case "system":
                yield replace(message, text=message.text + offer)
            case "assistant" if message.tool_calls:
                yield Message("assistant", json.dumps({_KEY: [_call(call) for call in message.tool_calls]}))
            case "tool":
                text = _RESULT.format(name=message.name, id=message.tool_call_id, result=message.text)
                yield Message("user", text)
            case _:
                yield message


def _definition(tool: ToolDefinition) -> str:
    return f"- {tool.name}: {tool.description} Schema: {json.dumps(tool.parameters, separators=(',', ':'))}"


def _call(call: ToolRequest) -> dict[str, object]:
    return {"id": call.id, "name": call.name, "arguments": json.loads(call.arguments)}


def parse_tool_calls(answer: Answer) -> Answer:
    """The answer with the tool calls that its text asks for. Any other text stays as it is: it is the final answer, or
    one that the stage rejects."""
    try:
        asked = json_object(answer.text).get(_KEY)
    except InvalidAnswer:
        return answer
    if not isinstance(asked, list) or not asked or not all(isinstance(call, dict) for call in asked):
        return answer
    calls = tuple(
        ToolRequest(f"call_{number}", str(call.get("name")), json.dumps(call.get("arguments", {}), default=str))
        for number, call in enumerate(asked, start=1)
    )
    return replace(answer, text="", tool_calls=calls)
