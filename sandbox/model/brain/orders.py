"""Finds order ids in a text: `AC-10442`, also written ac-10442, #AC10442 or AC 10442. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from sandbox.model.brain.lexicon import LANGUAGES, lexicon

_ID = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})(\s?[-\u2010-\u2015_]\s?|[ #]{0,2})(\d{5})(?![\d\w]|[.,]\d)")
_ODD_ID = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}-\d{1,8}(?!\d)")  # the right look, the wrong length
_SMALL_WORDS = "nr no id to at by as or if nu um os ca eu us we he up am pm go ok hi oh so do km kg ml cm mm tv pc"


@lru_cache(maxsize=1)
def _small_words() -> frozenset[str]:
    common = {word for language in LANGUAGES for word in lexicon(language).common if len(word) == 2}
    return frozenset(common.union(_SMALL_WORDS.split()))


def order_ids(text: str) -> list[str]:
    """Every order id in the text in the order of its first mention, in the shops' own spelling.

    Where there is none, what only looks like one counts: the customer did name an order, if a wrong one.
    """
    found = dict.fromkeys(
        f"{letters.upper()}-{digits}"
        for letters, between, digits in _ID.findall(text)
        if between.strip(" #") or letters.isupper() or letters.lower() not in _small_words()
    )
    return list(found) or _ODD_ID.findall(text)


def sentence_with(text: str, order_id: str) -> str:
    """The sentence that names the order first, or an empty text."""
    for sentence in re.split(r"(?<=[.!?;])\s+|\n+", text):
        if order_id in order_ids(sentence):
            return sentence
    return ""
