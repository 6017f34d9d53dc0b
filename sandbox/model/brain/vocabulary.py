"""Turns a customer's text into plain words, without case, accents and spelling variants; finds misspelt words.

The same folding is applied to the phrases and to the texts, so "zurück", "zurueck" and "ZURÜCK" are one word.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

STOP = "."
PAUSE = ","
MAX_WORDS = 6_000

_LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "æ": "a", "œ": "o", "\u2019": "'", "\u2018": "'", "\u00b4": "'"}
)
_SPELLINGS = re.compile(r"ae|oe|ue")
_JOINED = re.compile(r"'(s|re|ve|ll|m|d)\b")  # English it's, I'm; other apostrophes part two words
_NOT = re.compile(r"\b(do|dos|did|is|was|wo|ca|have|has|are|were|could|would|should)n'?t\b|\bcannot\b")
_FULL = {"wo": "will", "ca": "can", "": "can"}
_TOKEN = re.compile(r"\d+(?:[.,]\d+)+|\w+|\n\s*\n|[.!?;]|[,:()\n]")
_STOPS = frozenset(".!?;")


def fold(text: str) -> str:
    """The text in lower case, without accents, with ae, oe and ue as plain vowels."""
    low = text.translate(_LETTERS).casefold().translate(_LETTERS)
    if not low.isascii():
        low = "".join(c for c in unicodedata.normalize("NFKD", low) if not unicodedata.combining(c))
    return _SPELLINGS.sub(lambda match: match.group()[0], low)


def words(text: str) -> list[str]:
    """The words in order, with STOP between sentences and PAUSE between clauses; at most MAX_WORDS."""
    plain = _JOINED.sub(r"\1", _NOT.sub(_expand, fold(text)))
    return [_mark(token) for token in _TOKEN.findall(plain)[:MAX_WORDS]]


def _expand(match: re.Match[str]) -> str:
    verb = match.group(1) or ""
    return f"{_FULL.get(verb, verb)} not"


@lru_cache(maxsize=20_000)
def _mark(token: str) -> str:
    if token in _STOPS or token.count("\n") > 1:
        return STOP
    return PAUSE if not token[0].isalnum() and token[0] != "_" else token


def is_word(token: str) -> bool:
    """Whether the token is a word and not punctuation."""
    return token not in (STOP, PAUSE)


# Words with one typing error: a wrong, missing or additional letter, or two swapped letters.

# Longer than any term. The beginnings of longer words are still looked up.
_LONGEST = 64


def one_less(word: str) -> Iterator[str]:
    """The word, and the word with any one letter but the first left out."""
    yield word
    for i in range(1, len(word)):
        yield word[:i] + word[i + 1 :]


def index_of(plain: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """An index from pieces to the terms they may stand for; `plain` gives each term's letters."""
    near: defaultdict[str, set[str]] = defaultdict(set)
    for term, letters in plain.items():
        for piece in one_less(letters):
            near[piece].add(term)
    return {piece: frozenset(terms) for piece, terms in near.items()}


def is_slip(written: str, meant: str) -> bool:
    """Whether the two words differ by exactly one typing error."""
    if len(written) < len(meant):
        return is_slip(meant, written)
    at = next((i for i, (a, b) in enumerate(zip(written, meant, strict=False)) if a != b), len(meant))
    if len(written) == len(meant) + 1:
        return written[at + 1 :] == meant[at:]
    if len(written) != len(meant):
        return False
    swapped = meant[at + 1 : at + 2] + meant[at : at + 1] + meant[at + 2 :]
    return written[at + 1 :] == meant[at + 1 :] or written[at:] == swapped


def slips(word: str, near: Mapping[str, frozenset[str]], lengths: Iterable[int], least: int) -> set[str]:
    """The terms that the word, or its beginning, misspells; `lengths` are those of the stems."""
    terms: set[str] = set()
    for n in {len(word), *(m + more for m in lengths if m >= least for more in (-1, 0, 1))}:
        if n > min(len(word), _LONGEST) or n < least - 1:
            continue
        for piece in one_less(beginning := word[:n]):
            for term in near.get(piece, ()):
                if is_slip(beginning, term.rstrip("*")) and (term.endswith("*") or n == len(word)):
                    terms.add(term)
    return terms
