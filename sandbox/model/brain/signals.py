"""Weighs the signals in a ticket's words, in the languages of the ticket, and finds its order ids."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sandbox.model.brain.injection import REMEMBERED
from sandbox.model.brain.lexicon import DEFAULT, LANGUAGES, Match, languages_to_search, lexicon, rank_languages
from sandbox.model.brain.vocabulary import is_word, words

# Order ids: `AC-10442`, also written ac-10442, #AC10442 or AC 10442.
_ID = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})(\s?[-\u2010-\u2015_]\s?|[ #]{0,2})(\d{5})(?![\d\w]|[.,]\d)")
_ODD_ID = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}-\d{1,8}(?!\d)")  # the right look, the wrong length
_SMALL_WORDS = "nr no id to at by as or if nu um os ca eu us we he up am pm go ok hi oh so do km kg ml cm mm tv pc"


@lru_cache(maxsize=1)
def _small_words() -> frozenset[str]:
    common = {word for language in LANGUAGES for word in lexicon(language).common if len(word) == 2}
    return frozenset(common.union(_SMALL_WORDS.split()))


def order_ids(text: str) -> list[str]:
    """Every order id in the text in the order of its first mention, in the shops' own spelling.

    Without a well-formed id, malformed ones are returned: the customer named an order, although a wrong one.
    """
    ids = dict.fromkeys(
        f"{letters.upper()}-{digits}"
        for letters, between, digits in _ID.findall(text)
        if between.strip(" #") or letters.isupper() or letters.lower() not in _small_words()
    )
    return list(ids) or _ODD_ID.findall(text)


def sentence_with(text: str, order_id: str) -> str:
    """The first sentence that names the order; empty if there is none."""
    for sentence in re.split(r"(?<=[.!?;])\s+|\n+", text):
        if order_id in order_ids(sentence):
            return sentence
    return ""


SUBJECT_WORTH = 1.5
ASKED = "asked"  # how many question marks
NAMES_ORDER = "names_order"  # how many orders


@dataclass(frozen=True)
class Signals:
    """The weights by signal, the text's language and its number of words."""

    weights: Mapping[str, float]
    language: str
    word_count: int

    def of(self, *names: str) -> float:
        """The weight of the signals together."""
        return sum(self.weights.get(name, 0.0) for name in names)


@lru_cache(maxsize=REMEMBERED)
def read_signals(subject: str, text: str) -> Signals:
    """Weighs subject and text. The subject is a summary, so its words count 1.5 times."""
    whole = f"{subject}\n\n{text}"
    heading, tokens = len(words(subject)), words(whole)
    known = rank_languages(whole, tokens)
    weights, heard_in = _weigh(tokens, heading, languages_to_search(whole, tokens))
    asked = {ASKED: float(whole.count("?")), NAMES_ORDER: float(len(order_ids(whole)))}
    language = known[0][0] if known else heard_in
    return Signals({**weights, **asked}, language, sum(map(is_word, tokens)))


def _weigh(tokens: list[str], heading: int, languages: tuple[str, ...]) -> tuple[Mapping[str, float], str]:
    best: defaultdict[str, float] = defaultdict(float)
    heard_in, loudest = DEFAULT, 0.0
    for language in languages:
        weights = _sums(lexicon(language).find(tokens), heading)
        if (loudness := sum(weights.values())) > loudest:
            heard_in, loudest = language, loudness
        for signal, weight in weights.items():
            best[signal] = max(best[signal], weight)
    return best, heard_in


def _sums(matches: list[Match], heading: int) -> dict[str, float]:
    """Weights by signal; where phrases of one signal overlap, only the weightiest counts."""
    sums: defaultdict[str, float] = defaultdict(float)
    taken: defaultdict[str, set[int]] = defaultdict(set)
    for match in sorted(matches, key=lambda match: (-match.phrase.weight, match.start - match.end)):
        span = set(range(match.start, match.end))
        if span & taken[match.phrase.signal]:
            continue
        taken[match.phrase.signal] |= span
        sums[match.phrase.signal] += match.phrase.weight * (SUBJECT_WORTH if match.start < heading else 1.0)
    return sums
