"""Which language a text is in, by the small words that it uses. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sandbox.model.brain.lexicon import LANGUAGES, lexicon

DEFAULT = "en"
_LETTERS = {"ß": "de", "ł": "pl", "ñ": "es", "ã": "pt", "õ": "pt", "œ": "fr", "ż": "pl", "ę": "pl", "ą": "pl"}
_LETTER_WORTH = 2
_SECOND_FROM = 0.5  # of the first language's words, for a text in two languages
_SURE_FROM = 2


def ranked(text: str, tokens: Iterable[str]) -> list[tuple[str, float]]:
    """The languages that the text shows, the likeliest first, each with how many of its words stand there."""
    seen: Counter[str] = Counter()
    unique = set(tokens)
    for language in LANGUAGES:
        seen[language] += len(unique & lexicon(language).common)
    for letter in set(text.casefold()) & _LETTERS.keys():
        seen[_LETTERS[letter]] += _LETTER_WORTH
    return [(language, float(n)) for language, n in seen.most_common() if n > 0]


def readings(text: str, tokens: list[str]) -> tuple[str, ...]:
    """The languages whose phrases shall be looked for: one, two for a mixed text, all when nothing tells."""
    found = ranked(text, tokens)
    if not found or found[0][1] < _SURE_FROM:
        return LANGUAGES
    best = found[0][1]
    return tuple(language for language, n in found[:2] if n >= best * _SECOND_FROM)
