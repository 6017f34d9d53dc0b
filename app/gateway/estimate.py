"""Counts by ourselves what a provider did not report, with a real tokenizer; marked `estimated`. Pure."""

from __future__ import annotations

import json

from app import tokens
from app.gateway.conversation import Answer, Message, ToolDefinition, ToolRequest


def input_tokens(messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...]) -> int:
    """Tokens of a question: every message with its frame, the tools by their compact JSON, the answer's opening."""
    asked = sum(_message(message) for message in messages)
    return asked + sum(tokens.count(_definition(tool)) for tool in tools) + tokens.ANSWER_FRAME


def output_tokens(answer: Answer) -> int:
    """Tokens of an answer: its text, and the tool calls as the provider writes them."""
    return tokens.count(answer.text) + _calls(answer.tool_calls)


def _message(message: Message) -> int:
    return tokens.count_message(message.role, message.text) + _calls(message.tool_calls)


def _calls(calls: tuple[ToolRequest, ...]) -> int:
    return sum(tokens.count(call.name) + tokens.count(call.arguments) for call in calls)


def _definition(tool: ToolDefinition) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps({"type": "function", "function": function}, separators=(",", ":"))
