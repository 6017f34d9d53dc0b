"""Counts tokens with the tokenizer that Anthropic published for Claude 2, offline: it ships inside the litellm wheel.

Anthropic has published none since, so this is the nearest that a laptop comes to Claude's own counting; it has
nothing in common with the one that the agent estimates with.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from tokenizers import Tokenizer

from app.llm import tokenizer as tokens

_FILE = "anthropic_tokenizer.json"
_SHA256 = "c241737df24b4e7f7c9af4fdcee29a0ca903dcb288a8b753bc346a3092911767"
_CACHED_CHARACTERS = 16_384  # longer texts rarely come twice and would only fill memory


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """Claude 2's tokenizer, loaded once (about 0.1 s). Raises VocabularyMissing when its file is absent or altered."""
    file = tokens.vocabulary_folder() / _FILE
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256:
        raise tokens.VocabularyMissing(f"{file} is missing or altered; install the lock file's litellm again")
    made = Tokenizer.from_file(str(file))
    made.encode_special_tokens = True  # a customer who writes <EOT> has written five characters
    return made


def count(text: str) -> int:
    """Tokens of a plain text."""
    return _remembered(text) if len(text) <= _CACHED_CHARACTERS else _counted(text)


def _counted(text: str) -> int:
    # Half a pair of surrogates is no text to this tokenizer; it costs what the replacement character costs.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return len(tokenizer().encode(clean, add_special_tokens=False).ids)


@lru_cache(maxsize=4096)
def _remembered(text: str) -> int:
    return _counted(text)
