"""Tools that a request describes in words: read as if they were the provider's own, and answered with JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from sandbox.model.exchange import Answer, Message, Question, Tool, ToolCall

_OFFER = '{"tool_calls": ['
_TOOL = re.compile(r"^- ([a-z_]+): (.*)$", re.MULTILINE)
_RESULT = re.compile(r"^Result of \S+ \((\S+)\):\n(.*)$", re.MULTILINE)


def described(question: Question) -> bool:
    """Whether the request offers tools in words."""
    return not question.tools and _OFFER in question.text_of("system")


def with_tools(question: Question) -> Question:
    """The same request with tools, calls and results in their native form."""
    tools = tuple(Tool(name, text) for name, text in _TOOL.findall(question.text_of("system").partition(_OFFER)[2]))
    return replace(question, tools=tools, messages=tuple(_native(question.messages)))


def _native(messages: tuple[Message, ...]) -> Iterator[Message]:
    """Results are believed only where calls were asked for: a ticket may contain anything."""
    asked = False
    for message in messages:
        calls = _calls(message.text) if message.role == "assistant" else ()
        if calls:
            asked = True
            yield replace(message, text="", tool_calls=calls)
        elif asked and message.role == "user":
            for call_id, text in _RESULT.findall(message.text):
                yield Message("tool", text, tool_call_id=call_id)
            if rest := _RESULT.sub("", message.text).strip():
                yield replace(message, text=rest)
            asked = False
        else:
            yield message


def _calls(text: str) -> tuple[ToolCall, ...]:
    """The calls that the model itself asked for in an earlier answer."""
    try:
        asked = json.loads(text)["tool_calls"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(ToolCall(call["id"], call["name"], json.dumps(call["arguments"])) for call in asked)


def calls_as_text(answer: Answer) -> Answer:
    """The answer with its tool calls as JSON text."""
    if not answer.tool_calls:
        return answer
    calls = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in answer.tool_calls]
    return replace(answer, text=json.dumps({"tool_calls": calls}), tool_calls=())
