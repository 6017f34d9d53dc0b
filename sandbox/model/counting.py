"""How each protocol's provider counts what it bills: text, frames, offered tools and tool calls. No I/O.

OpenAI: three tokens a message and its role, three for the answer's start, as its cookbook says; tools by their compact
JSON. Anthropic: its own tokenizer; the turns as `Human:` and `Assistant:`; tool calls and results in the XML of its
tool-use guide; and for a request with tools the prompt whose length its documentation states per model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

from app.llm import tokenizer
from sandbox.model import claude
from sandbox.model.exchange import Answer, Message, Question, ToolCall

# "Tool use system prompt token count" for tool choice auto, Anthropic's documentation of 2026-07-13.
_TOOLS_PROMPT = (
    ("claude-opus-4-8", 290),
    ("claude-opus-4-7", 675),
    ("claude-opus-4-6", 497),
    ("claude-opus-4-5", 496),
    ("claude-opus-4", 313),
    ("claude-sonnet-5", 354),
    ("claude-sonnet-4-6", 497),
    ("claude-sonnet-4-5", 496),
    ("claude-sonnet-4", 313),
    ("claude-haiku-4-5", 496),
)
_OTHER_TOOLS_PROMPT = 264  # the oldest that it lists: Haiku 3.5


class Counting(Protocol):
    """How one provider counts."""

    def offered(self, question: Question) -> int:
        """Tokens of the tools that a question offers."""
        ...

    def message(self, message: Message) -> int:
        """Tokens of one message with its frame."""
        ...

    def opening(self) -> int:
        """Tokens that open the answer, on the side of the input."""
        ...

    def said(self, answer: Answer) -> int:
        """Tokens of an answer, without its thoughts."""
        ...

    def thought(self, answer: Answer) -> int:
        """Tokens of an answer's thoughts."""
        ...


class OpenAICounting:
    """o200k_base and OpenAI's published framing."""

    def offered(self, question: Question) -> int:
        """Each definition as compact JSON."""
        return sum(tokenizer.count(tool.definition) for tool in question.tools)

    def message(self, message: Message) -> int:
        """Frame, role, text and tool calls."""
        return tokenizer.count_message(message.role, message.text) + self._calls(message.tool_calls)

    def opening(self) -> int:
        """Three tokens."""
        return tokenizer.ANSWER_FRAME

    def said(self, answer: Answer) -> int:
        """Text and tool calls."""
        return tokenizer.count(answer.text) + self._calls(answer.tool_calls)

    def thought(self, answer: Answer) -> int:
        """As text."""
        return tokenizer.count(answer.thoughts)

    def _calls(self, calls: Iterable[ToolCall]) -> int:
        return sum(tokenizer.count(call.name) + tokenizer.count(call.arguments) for call in calls)


class AnthropicCounting:
    """Claude's published tokenizer and Anthropic's documented formats."""

    def offered(self, question: Question) -> int:
        """The model's prompt for tools, and each definition as compact JSON."""
        if not question.tools:
            return 0
        return tools_prompt(question.model) + sum(claude.count(tool.definition) for tool in question.tools)

    def message(self, message: Message) -> int:
        """A turn of the human or the assistant; the system's text has no frame."""
        text = _result(message.text) if message.role == "tool" else message.text + _invoked(message.tool_calls)
        turn = {"system": "", "assistant": "\n\nAssistant: "}.get(message.role, "\n\nHuman: ")
        return claude.count(turn + text)

    def opening(self) -> int:
        """The assistant's turn, left open."""
        return claude.count("\n\nAssistant:")

    def said(self, answer: Answer) -> int:
        """Text, and tool calls as the model writes them."""
        return claude.count(answer.text + _invoked(answer.tool_calls))

    def thought(self, answer: Answer) -> int:
        """As text."""
        return claude.count(answer.thoughts)


def tools_prompt(model: str) -> int:
    """The length of the prompt that Anthropic adds to a request with tools."""
    return next((length for name, length in _TOOLS_PROMPT if model.startswith(name)), _OTHER_TOOLS_PROMPT)


def _invoked(calls: tuple[ToolCall, ...]) -> str:
    if not calls:
        return ""
    return "<function_calls>\n" + "".join(_invoke(call) for call in calls) + "</function_calls>"


def _invoke(call: ToolCall) -> str:
    given = json.loads(call.arguments)
    parameters = "".join(f"<{name}>{value}</{name}>\n" for name, value in given.items())
    return f"<invoke>\n<tool_name>{call.name}</tool_name>\n<parameters>\n{parameters}</parameters>\n</invoke>\n"


def _result(text: str) -> str:
    return f"<function_results>\n<result>\n<stdout>\n{text}\n</stdout>\n</result>\n</function_results>"
