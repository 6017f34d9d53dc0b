"""One language's phrases, read from its data file, and the search for them in a text.

A phrase is a row of terms: `word`, `stem*` (any ending), `this/that*` (either), `..` (up to five words between,
in the same sentence), `~` (the same within a clause). Each phrase speaks for one signal with a weight. It
counts once, however often it is said, and not at all where a negation word stands close by, unless the phrase
itself holds that negation.
"""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from sandbox.model.brain.vocabulary import PAUSE, STOP, fold, index_of, slips

LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pt", "pl")
WEIGHTS = {"decisive": 7.0, "strong": 4.0, "fair": 2.0, "weak": 1.0}
GAPS = {"..": frozenset({STOP}), "~": frozenset({STOP, PAUSE})}
GAP_WORDS = 5
NEGATION_REACH = 3
_FOLDER = Path(__file__).parent / "phrases"
_TYPO_FROM_LETTERS = 6


@dataclass(frozen=True)
class Gap:
    """Some words between two terms, up to a mark of punctuation."""

    ends_at: frozenset[str]


Terms = tuple[frozenset[str] | Gap, ...]


@dataclass(frozen=True)
class Phrase:
    """A row of terms, each a set of alternatives, or a Gap."""

    signal: str
    weight: float
    terms: Terms
    text: str
    negates: bool  # holds a negation word itself


@dataclass(frozen=True)
class Match:
    """A phrase found in a text."""

    phrase: Phrase
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    """One language's phrases, negations and common words."""

    language: str
    phrases: tuple[Phrase, ...]
    negations: frozenset[str]
    negates_backwards: bool  # the negation word may follow its verb, as in German
    common: frozenset[str]  # words that identify the language
    vocabulary: Vocabulary
    by_first_term: Mapping[str, tuple[Phrase, ...]]

    def find(self, tokens: list[str]) -> list[Match]:
        """Every phrase in the text, each at its first place that is not negated."""
        fitting = {token: self.vocabulary.of(token) for token in set(tokens)}
        heard = [fitting[token] for token in tokens]
        starting = self._possible(frozenset().union(*fitting.values()))
        matches: dict[str, Match] = {}
        for start, terms in enumerate(heard):
            for phrase in (match for term in terms for match in starting.get(term, ())):
                if (phrase.signal + phrase.text) in matches:
                    continue
                end = _match(phrase.terms, heard, tokens, start)
                if end is not None and not self._negated(phrase, tokens, start, end):
                    matches[phrase.signal + phrase.text] = Match(phrase, start, end)
        return list(matches.values())

    def _possible(self, present: frozenset[str]) -> dict[str, list[Phrase]]:
        """The phrases whose terms are all among `present`, by first term. This keeps the search fast in a long letter
        that repeats one word."""
        return {
            term: [phrase for phrase in self.by_first_term[term] if _all_in(phrase.terms, present)]
            for term in present & self.by_first_term.keys()
        }

    def _negated(self, phrase: Phrase, tokens: list[str], start: int, end: int) -> bool:
        if phrase.negates:
            return False
        if _near(tokens[max(0, start - NEGATION_REACH) : start][::-1], self.negations):
            return True
        return self.negates_backwards and _near(tokens[end : end + NEGATION_REACH], self.negations)


def _all_in(terms: Terms, present: frozenset[str]) -> bool:
    return all(isinstance(term, Gap) or term & present for term in terms)


def _near(tokens: list[str], negations: frozenset[str]) -> bool:
    for token in tokens:
        if token in (STOP, PAUSE):
            return False
        if token in negations:
            return True
    return False


def _match(terms: Terms, heard: list[frozenset[str]], tokens: list[str], at: int) -> int | None:
    """The place behind the match of `terms` that begins at `at`, or None."""
    if not terms:
        return at
    first, rest = terms[0], terms[1:]
    if not isinstance(first, Gap):
        return _match(rest, heard, tokens, at + 1) if at < len(heard) and first & heard[at] else None
    for skipped in range(GAP_WORDS + 1):
        end = _match(rest, heard, tokens, at + skipped)
        if end is not None:
            return end
        if at + skipped >= len(tokens) or tokens[at + skipped] in first.ends_at:
            return None
    return None


@dataclass(frozen=True)
class Vocabulary:
    """Which terms of the phrases a word fits: itself, a stem of it, or either with one letter wrong."""

    exact: frozenset[str]
    stems: frozenset[str]
    lengths: tuple[int, ...] = field(default=())
    near: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, word: str) -> frozenset[str]:
        """The terms that the word fits; a slip of one letter is forgiven in long words only."""
        return _terms_of(self, word)

    def __hash__(self) -> int:
        return id(self)


@lru_cache(maxsize=200_000)
def _terms_of(terms: Vocabulary, word: str) -> frozenset[str]:
    fits = {word} if word in terms.exact else set()
    fits.update(f"{word[:n]}*" for n in terms.lengths if word[:n] in terms.stems and len(word) >= n)
    if fits or len(word) < _TYPO_FROM_LETTERS or not word.isalpha():
        return frozenset(fits)
    return frozenset(slips(word, terms.near, terms.lengths, _TYPO_FROM_LETTERS))


def _vocabulary(phrases: tuple[Phrase, ...]) -> Vocabulary:
    every = {term for phrase in phrases for group in phrase.terms if not isinstance(group, Gap) for term in group}
    stems = frozenset(term[:-1] for term in every if term.endswith("*"))
    exact = frozenset(term for term in every if not term.endswith("*"))
    long = {term: term.rstrip("*") for term in every if len(term.rstrip("*")) >= _TYPO_FROM_LETTERS}
    lengths = tuple(sorted({len(stem) for stem in stems}))
    return Vocabulary(exact, stems, lengths, index_of(long))


def _group(term: str) -> frozenset[str] | Gap:
    return Gap(GAPS[term]) if term in GAPS else frozenset(fold(term).split("/"))


def _phrase(signal: str, weight: float, text: str, negations: frozenset[str]) -> Phrase:
    groups = [_group(term) for term in text.split()]
    if not groups or isinstance(groups[0], Gap) or isinstance(groups[-1], Gap):
        raise ValueError(f"phrase '{text}' of {signal} must begin and end with a word")
    negates = any(not isinstance(group, Gap) and group & negations for group in groups)
    return Phrase(signal, weight, tuple(groups), text, negates)


@lru_cache(maxsize=len(LANGUAGES))
def lexicon(language: str) -> Lexicon:
    """The lexicon of one language. Raises ValueError for a phrase that cannot be read."""
    data = tomllib.loads((_FOLDER / f"{language}.toml").read_text("utf-8"))
    about = data.pop("language")
    negations = frozenset(fold(word) for word in about["negations"].split())
    phrases = tuple(
        _phrase(signal, WEIGHTS[strength], text, negations)
        for signal, strengths in data.items()
        for strength, texts in strengths.items()
        for text in texts
    )
    by_first: defaultdict[str, list[Phrase]] = defaultdict(list)
    for phrase in phrases:
        first = phrase.terms[0]
        for term in () if isinstance(first, Gap) else first:
            by_first[term].append(phrase)
    common = frozenset(fold(word) for word in about["common"].split())
    starts = {term: tuple(group) for term, group in by_first.items()}
    return Lexicon(language, phrases, negations, about["negates_backwards"], common, _vocabulary(phrases), starts)


# The language of a text, recognized by its common words.

DEFAULT = "en"
_LETTERS = {"ß": "de", "ł": "pl", "ñ": "es", "ã": "pt", "õ": "pt", "œ": "fr", "ż": "pl", "ę": "pl", "ą": "pl"}
_LETTER_WORTH = 2
_SECOND_FROM = 0.5  # of the first language's words, for a text in two languages
_SURE_FROM = 2


def rank_languages(text: str, tokens: Iterable[str]) -> list[tuple[str, float]]:
    """The languages of the text, the likeliest first, each with its number of common words in the text."""
    seen: Counter[str] = Counter()
    unique = set(tokens)
    for language in LANGUAGES:
        seen[language] += len(unique & lexicon(language).common)
    for letter in set(text.casefold()) & _LETTERS.keys():
        seen[_LETTERS[letter]] += _LETTER_WORTH
    return [(language, float(n)) for language, n in seen.most_common() if n > 0]


def languages_to_search(text: str, tokens: list[str]) -> tuple[str, ...]:
    """The languages whose phrases are searched: one, two for a mixed text, all if the language is unclear."""
    ranking = rank_languages(text, tokens)
    if not ranking or ranking[0][1] < _SURE_FROM:
        return LANGUAGES
    best = ranking[0][1]
    return tuple(language for language, n in ranking[:2] if n >= best * _SECOND_FROM)
