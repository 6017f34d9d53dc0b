"""Measures what an exchange costs: tokens in and out, and what a provider's prompt cache takes off.

The prompt cache works as the providers describe theirs: a prefix of at least 1,024 tokens that the same key
sent to the same model within five minutes is read from the cache. OpenAI caches by itself, in blocks of 128
tokens; Anthropic caches where the client put a mark. Prefixes are compared message by message.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.model.counting import Counting
from sandbox.model.exchange import Answer, Question

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
    """Remembers prefixes for a few minutes."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen: OrderedDict[bytes, datetime] = OrderedDict()

    def holds(self, prefix: Prefix) -> bool:
        """Whether the prefix was seen within its life."""
        seen_at = self._seen.get(prefix.digest)
        return seen_at is not None and self._clock() - seen_at <= CACHE_LIFE

    def keep(self, prefix: Prefix) -> None:
        """Remembers the prefix from now on, and forgets the oldest when there are too many."""
        self._seen[prefix.digest] = self._clock()
        self._seen.move_to_end(prefix.digest)
        if len(self._seen) > _CACHE_ENTRIES:
            self._seen.popitem(last=False)


def measure(
    question: Question, answer: Answer, cache: PromptCache, by: Counting, *, key: str, automatic: bool
) -> Usage:
    """The usage of one exchange. `automatic` caches as OpenAI does, else only at the client's marks."""
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
