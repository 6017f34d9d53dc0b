"""What the sandbox bills in Anthropic's protocol: its tokenizer, its prompt for tools, its form of calls."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from app.llm import tokenizer
from sandbox.model import counting
from sandbox.model.counting import AnthropicCounting, OpenAICounting, tools_prompt
from sandbox.model.exchange import Answer, Message, Question, Tool, ToolCall

CALL = ToolCall("t1", "lookup_order", '{"order_id": "AC-10442"}')
OFFERED = Question("claude-haiku-4-5", (Message("user", "hello"),), (Tool("lookup_order", "{}"),))


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("hello world", 2), ("Rückerstattung", 6), ("<EOT>", 4), ("\ud800 x", 2)]
)
def test_known_counts_of_claudes_tokenizer(text: str, expected: int) -> None:
    assert counting.claude_tokens(text) == expected


def test_it_is_not_the_tokenizer_that_the_agent_estimates_with() -> None:
    text = "Die Bohrmaschine kam zerbrochen an, ich möchte bitte mein Geld zurück."
    assert counting.claude_tokens(text) > tokenizer.count(text)


def test_loading_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the vocabulary was asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    counting.claude_tokenizer.cache_clear()
    assert counting.claude_tokenizer().get_vocab_size() == 65_000


def test_an_altered_vocabulary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "vocabulary_folder", lambda: tmp_path)
    (tmp_path / "anthropic_tokenizer.json").write_text("{}")
    counting.claude_tokenizer.cache_clear()
    with pytest.raises(tokenizer.VocabularyMissing, match="install"):
        counting.claude_tokenizer()
    counting.claude_tokenizer.cache_clear()


@pytest.mark.parametrize(
    ("model", "expected"), [("claude-haiku-4-5", 496), ("claude-opus-4-20250514", 313), ("claude-2.1", 264)]
)
def test_the_prompt_for_tools_is_as_long_as_the_documentation_says(model: str, expected: int) -> None:
    assert tools_prompt(model) == expected


def test_a_request_without_tools_pays_for_no_prompt() -> None:
    assert AnthropicCounting().offered(OFFERED) == 496 + counting.claude_tokens("{}")
    assert AnthropicCounting().offered(Question("claude-haiku-4-5", (Message("user", "hello"),))) == 0


def test_a_tool_call_costs_more_than_its_json() -> None:
    said = Answer(tool_calls=(CALL,))
    assert AnthropicCounting().said(said) > OpenAICounting().said(said) + 20
    assert AnthropicCounting().message(Message("tool", "{}")) > AnthropicCounting().message(Message("user", "{}"))
