"""Counts tokens as the providers bill them: texts, message frames, offered tools and tool calls; and the prompt cache.

OpenAI: the role and three more tokens for each message, and three for the start of the answer, as its cookbook says;
tools as compact JSON. Anthropic: its published tokenizer; turns as `Human:` and `Assistant:`; tool calls and results in
the XML of its tool-use guide; for requests with tools also the system prompt whose length is documented per model.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol

from tokenizers import Tokenizer

from app.llm import tokenizer
from sandbox.model.exchange import Answer, Message, Question, ToolCall

# The tokenizer that Anthropic published for Claude 2, the last one that it published. It is in the litellm wheel, so it
# works offline. The agent estimates with a different tokenizer.

_FILE = "anthropic_tokenizer.json"
_SHA256 = "c241737df24b4e7f7c9af4fdcee29a0ca903dcb288a8b753bc346a3092911767"
_CACHED_CHARACTERS = 16_384  # longer texts rarely come twice and would only fill memory


@lru_cache(maxsize=1)
def claude_tokenizer() -> Tokenizer:
    """Claude 2's tokenizer, loaded once (about 0.1 s). Raises VocabularyMissing if its file is missing or altered."""
    file = tokenizer.vocabulary_folder() / _FILE
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256:
        raise tokenizer.VocabularyMissing(f"{file} is missing or altered; install the lock file's litellm again")
    claude = Tokenizer.from_file(str(file))
    claude.encode_special_tokens = True  # <EOT> in a customer's text is five characters
    return claude


def claude_tokens(text: str) -> int:
    """The number of tokens of a plain text."""
    return _remembered_count(text) if len(text) <= _CACHED_CHARACTERS else _count_claude(text)


def _count_claude(text: str) -> int:
    # The tokenizer rejects a lone surrogate; it is counted like the replacement character.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return len(claude_tokenizer().encode(clean, add_special_tokens=False).ids)


@lru_cache(maxsize=4096)
def _remembered_count(text: str) -> int:
    return _count_claude(text)


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
    """A provider's way of counting tokens."""

    def offered(self, question: Question) -> int:
        """Tokens of the tools that a question offers."""
        ...

    def message(self, message: Message) -> int:
        """Tokens of one message with its frame."""
        ...

    def opening(self) -> int:
        """Input tokens that open the answer."""
        ...

    def said(self, answer: Answer) -> int:
        """Tokens of an answer, without its thoughts."""
        ...

    def thought(self, answer: Answer) -> int:
        """Tokens of an answer's thoughts."""
        ...


class OpenAICounting:
    """The vocabulary o200k_base and OpenAI's published framing."""

    def offered(self, question: Question) -> int:
        """Each tool's definition as compact JSON."""
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
        """The model's tool-use prompt, and each tool's definition as compact JSON."""
        if not question.tools:
            return 0
        return tools_prompt(question.model) + sum(claude_tokens(tool.definition) for tool in question.tools)

    def message(self, message: Message) -> int:
        """A turn of the human or the assistant; the system's text has no frame."""
        text = _result(message.text) if message.role == "tool" else message.text + _invoked(message.tool_calls)
        turn = {"system": "", "assistant": "\n\nAssistant: "}.get(message.role, "\n\nHuman: ")
        return claude_tokens(turn + text)

    def opening(self) -> int:
        """The start of the assistant's turn."""
        return claude_tokens("\n\nAssistant:")

    def said(self, answer: Answer) -> int:
        """Text, and tool calls as the model writes them."""
        return claude_tokens(answer.text + _invoked(answer.tool_calls))

    def thought(self, answer: Answer) -> int:
        """As text."""
        return claude_tokens(answer.thoughts)


def tools_prompt(model: str) -> int:
    """The length of the prompt that Anthropic adds to a request with tools."""
    return next((length for name, length in _TOOLS_PROMPT if model.startswith(name)), _OTHER_TOOLS_PROMPT)


def _invoked(calls: tuple[ToolCall, ...]) -> str:
    if not calls:
        return ""
    return "<function_calls>\n" + "".join(_invoke(call) for call in calls) + "</function_calls>"


def _invoke(call: ToolCall) -> str:
    arguments = json.loads(call.arguments)
    parameters = "".join(f"<{name}>{value}</{name}>\n" for name, value in arguments.items())
    return f"<invoke>\n<tool_name>{call.name}</tool_name>\n<parameters>\n{parameters}</parameters>\n</invoke>\n"


def _result(text: str) -> str:
    return f"<function_results>\n<result>\n<stdout>\n{text}\n</stdout>\n</result>\n</function_results>"


# The prompt cache works as the providers describe theirs: a prefix of at least 1,024 tokens that the same key sent to
# the same model within five minutes is read from the cache. OpenAI caches automatically, in blocks of 128 tokens;
# Anthropic caches up to the client's marks. Prefixes are compared message by message.

CACHEABLE_FROM_TOKENS = 1024
CACHE_BLOCK_TOKENS = 128
CACHE_LIFE = timedelta(minutes=5)
_CACHE_ENTRIES = 10_000


@dataclass(frozen=True)
class Usage:
    """Tokens of one exchange: `input` includes `cached` and `cache_written`, `output` includes `reasoning`."""

    input: int
    output: int
    cached: int = 0
    cache_written: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Prefix:
    """The conversation up to the end of one message: its digest and its length in tokens."""

    digest: bytes
    tokens: int
    marked: bool


class PromptCache:
    """The prefixes of the last minutes. `clock` returns the time in UTC."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen: OrderedDict[bytes, datetime] = OrderedDict()

    def holds(self, prefix: Prefix) -> bool:
        """Whether the prefix was kept within the last `CACHE_LIFE`."""
        seen_at = self._seen.get(prefix.digest)
        return seen_at is not None and self._clock() - seen_at <= CACHE_LIFE

    def keep(self, prefix: Prefix) -> None:
        """Stores the prefix, and drops the oldest one if there are too many."""
        self._seen[prefix.digest] = self._clock()
        self._seen.move_to_end(prefix.digest)
        if len(self._seen) > _CACHE_ENTRIES:
            self._seen.popitem(last=False)


def measure(
    question: Question, answer: Answer, cache: PromptCache, by: Counting, *, key: str, automatic: bool
) -> Usage:
    """The usage of one exchange, counted by `by`. With `automatic`, prefixes are cached as OpenAI does, otherwise only
    at the client's marks."""
    prefixes = list(_prefixes(question, by, key))
    total = prefixes[-1].tokens + by.opening()
    cacheable = [p for p in prefixes if p.tokens >= CACHEABLE_FROM_TOKENS and (automatic or p.marked)]
    cached = max((p.tokens for p in cacheable if cache.holds(p)), default=0)
    for prefix in cacheable:
        cache.keep(prefix)
    written = 0 if automatic or not cacheable else cacheable[-1].tokens - cached
    if automatic:
        cached -= cached % CACHE_BLOCK_TOKENS
    reasoning = by.thought(answer) if question.reasons else 0
    return Usage(total, by.said(answer) + reasoning, cached, written, reasoning)


def _prefixes(question: Question, by: Counting, key: str) -> Iterator[Prefix]:
    digest = hashlib.sha256(f"{key}\n{question.model}\n".encode("utf-8", "surrogatepass"))
    length = by.offered(question)
    for tool in question.tools:
        digest.update(tool.definition.encode("utf-8", "surrogatepass"))
    for message in question.messages:
        digest.update(repr((message.role, message.text, message.tool_calls)).encode("utf-8", "surrogatepass"))
        length += by.message(message)
        yield Prefix(digest.digest(), length, message.cache_here)
