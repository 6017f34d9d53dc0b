"""Finds words with one slip of the finger: a letter wrong, missing, doubled, or two changed places. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

# No term is as long; a word's beginning is looked up by itself.
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
    """Whether exactly one slip parts the two words."""
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
    found: set[str] = set()
    for n in {len(word), *(m + more for m in lengths if m >= least for more in (-1, 0, 1))}:
        if n > min(len(word), _LONGEST) or n < least - 1:
            continue
        for piece in one_less(beginning := word[:n]):
            for term in near.get(piece, ()):
                if is_slip(beginning, term.rstrip("*")) and (term.endswith("*") or n == len(word)):
                    found.add(term)
    return found
