"""What a call uses in tokens, counted by ourselves where a provider reports nothing. Pure.

Text is counted with OpenAI's o200k_base and scaled by how many tokens another family of models makes of the same text;
messages, tool calls and offered tools add what their providers say, or show, that they add. docs/cost-model.md says
how far off this is, and what of it could be measured.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from app.llm import tokenizer
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest


@dataclass(frozen=True)
class Counting:
    """How a family of models counts. `percent`: its tokens for 100 of o200k_base; the rest is in its own tokens."""

    percent: int = 100
    message_frame: int = tokenizer.MESSAGE_FRAME + 1  # the role is one token
    answer_frame: int = tokenizer.ANSWER_FRAME
    tools_prompt: int = 0  # added to a request that offers any tool
    frames_system: bool = True
    xml_tools: bool = False


# OpenAI's own, and everybody's of whom we know nothing better.
PLAIN = Counting()


def _claude(percent: int, tools_prompt: int, frame: int = 3) -> Counting:
    return Counting(percent, frame, frame, tools_prompt, frames_system=False, xml_tools=True)


# Percent: 106 is what the tokenizer that Anthropic published for Claude 2 makes of this project's prompts. 120 holds
# for Claude 3 to 4.6: 16 % more than GPT-4o on English articles, 30 % on Python, as published comparisons with
# Claude 3.5 Sonnet measured. From Opus 4.7 on Anthropic says "roughly 30 percent" more again: 156.
# The tools' prompt: Anthropic's table "Tool use system prompt token count" (tool choice auto), as of 2026-07-13.
_CLAUDES = (
    (r"claude-(?:instant|v?[12]\b)|^sandbox-", _claude(106, 264, frame=4)),
    (r"claude-(?:3-5-haiku|haiku-3)|claude-3-haiku", _claude(120, 264)),
    (r"claude-(?:3|(?:opus|sonnet)-4(?:-[01]\b|-20|@|$))", _claude(120, 313)),
    (r"claude-(?:opus|sonnet|haiku)-4-[56]", _claude(120, 497)),
    (r"claude-opus-4-7", _claude(156, 675)),
    (r"claude-opus-4-8", _claude(156, 290)),
    (r"", _claude(156, 354)),  # Sonnet 5, and what is newer
)
_KNOWN = tuple((re.compile(pattern), counting) for pattern, counting in _CLAUDES)


def counting(provider: str, model: str) -> Counting:
    """How a model counts: by its name, and by the component's type (`conversation.anthropic`) when the name says
    nothing, as before the first answer."""
    name = model.lower()
    if "claude" not in name and "anthropic" not in provider.lower():
        return PLAIN
    return next(found for pattern, found in _KNOWN if pattern.search(name))


def input_tokens(messages: tuple[Message, ...], tools: tuple[ToolDefinition, ...], by: Counting = PLAIN) -> int:
    """Tokens of a question: every message with its frame, the tools by their compact JSON, the answer's opening."""
    text = sum(_message(message, by) for message in messages)
    text += sum(tokenizer.count(_definition(tool)) for tool in tools)
    framed = sum(by.frames_system or message.role != "system" for message in messages)
    fixed = framed * by.message_frame + by.answer_frame + (by.tools_prompt if tools else 0)
    return _scaled(text, by) + fixed


def output_tokens(answer: Answer, by: Counting = PLAIN) -> int:
    """Tokens of an answer: its text, and the tool calls as the provider writes them. Thoughts that the provider bills
    and does not show are not among them."""
    return _scaled(tokenizer.count(answer.text) + _calls(answer.tool_calls, by), by)


def _scaled(count: int, by: Counting) -> int:
    return -(-count * by.percent // 100)


def _message(message: Message, by: Counting) -> int:
    framed = tokenizer.count(_XML_RESULT) if by.xml_tools and message.role == "tool" else 0
    return tokenizer.count(message.text) + _calls(message.tool_calls, by) + framed


def _calls(calls: tuple[ToolRequest, ...], by: Counting) -> int:
    if by.xml_tools and calls:
        return tokenizer.count(_XML_CALLS) + sum(tokenizer.count(_as_xml(call)) for call in calls)
    return sum(tokenizer.count(call.name) + tokenizer.count(call.arguments) for call in calls)


# Claude writes tool calls, and reads results, as XML: the only form of them that Anthropic has published.
_XML_CALLS = "<function_calls>\n</function_calls>"
_XML_RESULT = "<function_results>\n<result>\n<stdout>\n</stdout>\n</result>\n</function_results>"


def _as_xml(call: ToolRequest) -> str:
    name = f"<tool_name>{call.name}</tool_name>"
    return f"<invoke>\n{name}\n<parameters>\n{_parameters(call.arguments)}</parameters>\n</invoke>\n"


def _parameters(arguments: str) -> str:
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(given, dict):
        return arguments
    return "".join(f"<{name}>{value}</{name}>\n" for name, value in given.items())


def _definition(tool: ToolDefinition) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return json.dumps(function, separators=(",", ":"))
