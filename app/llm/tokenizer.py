"""Counts tokens with OpenAI's o200k_base, offline: the vocabulary ships inside the installed litellm wheel.

Plain text is counted exactly as OpenAI counts it. Chat framing follows OpenAI's published rule (three tokens a
message, the role, three for the answer's start); tool definitions are counted by their compact JSON. The sandbox
bills OpenAI's protocol by it; the gateway estimates by it what a provider does not report.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import tiktoken

MESSAGE_FRAME = 3
ANSWER_FRAME = 3
_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"  # tiktoken's cache name of o200k_base
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_CACHED_CHARACTERS = 16_384  # longer texts rarely come twice and would only fill memory


class VocabularyMissing(RuntimeError):
    """The token vocabulary is not where the lock file's litellm puts it."""


def vocabulary_folder() -> Path:
    """The folder with tiktoken's files inside litellm, found without importing litellm.

    Raises VocabularyMissing when the file is absent or altered, since tiktoken would then ask the network.
    """
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        raise VocabularyMissing("package litellm is not installed; install the lock file again")
    folder = Path(next(iter(spec.submodule_search_locations))) / "litellm_core_utils" / "tokenizers"
    file = folder / _FILE
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256:
        raise VocabularyMissing(f"{file} is missing or altered; install the lock file's litellm again")
    return folder


@contextmanager
def _tiktoken_cache(folder: Path) -> Iterator[None]:
    # tiktoken takes its folder from the environment only; put back so that no child process inherits it.
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


@lru_cache(maxsize=1)
def encoding() -> tiktoken.Encoding:
    """o200k_base, loaded once (about 0.4 s)."""
    with _tiktoken_cache(vocabulary_folder()):
        return tiktoken.get_encoding("o200k_base")


def count(text: str) -> int:
    """Tokens of a plain text; system prompts and tool definitions are remembered."""
    return _remembered(text) if len(text) <= _CACHED_CHARACTERS else _count(text)


def count_message(role: str, text: str) -> int:
    """Tokens of one chat message with its frame."""
    return MESSAGE_FRAME + count(role) + count(text)


def _count(text: str) -> int:
    return len(encoding().encode_ordinary(text))


@lru_cache(maxsize=4096)
def _remembered(text: str) -> int:
    return _count(text)
