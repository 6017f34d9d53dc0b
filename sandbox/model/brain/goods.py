"""Which of an order's items a ticket speaks of, in whatever language. Pure but for its data file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from sandbox.model.brain.vocabulary import folded, is_word, words

_FILE = Path(__file__).with_name("goods.toml")
_LETTERS_OF_A_NOUN = 3
_NO_NOUN = frozenset(
    {
        "set",
        "pack",
        "wireless",
        "smart",
        "full",
        "led",
        "usb",
        "hd",
        "the",
        "and",
        "for",
        "with",
        "two",
        "three",
        "four",
    }
)


@lru_cache(maxsize=1)
def _glossary() -> dict[str, tuple[str, ...]]:
    data = tomllib.loads(_FILE.read_text("utf-8"))
    return {folded(noun): tuple(folded(meanings).split()) for noun, meanings in data.items()}


@lru_cache(maxsize=4096)
def _names(item: str) -> tuple[str, ...]:
    """The patterns that stand for an item: its own words and what they are called elsewhere."""
    own = [w for w in words(item) if is_word(w) and len(w) >= _LETTERS_OF_A_NOUN and w.isalpha() and w not in _NO_NOUN]
    singular = [w[:-1] for w in own if w.endswith("s")]
    plural = [f"{w}s" for w in own]
    elsewhere = [m for w in (*own, *singular) for m in _glossary().get(w, ())]
    return tuple(dict.fromkeys([*own, *singular, *plural, *elsewhere]))


def _fits(word: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        core = pattern.strip("*")
        return core in word[1:] if pattern.endswith("*") else word.endswith(core) and word != core
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern


def named(text: str, items: Sequence[str]) -> list[int]:
    """The positions of the items that the text names. A word that several items share decides nothing."""
    spoken = {w for w in words(text) if is_word(w)}
    hits = [frozenset(_hits(spoken, item)) for item in items]
    return [i for i, mine in enumerate(hits) if mine - _others(hits, i)]


def _hits(spoken: Iterable[str], item: str) -> Iterable[str]:
    patterns = _names(item)
    return (word for word in spoken if any(_fits(word, pattern) for pattern in patterns))


def _others(hits: Sequence[frozenset[str]], mine: int) -> frozenset[str]:
    return frozenset().union(*(found for i, found in enumerate(hits) if i != mine))
