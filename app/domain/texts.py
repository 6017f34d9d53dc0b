"""Text that every store can hold. Pure.

PostgreSQL holds no NUL character, and nothing that is written as UTF-8 holds one half of a surrogate pair; SQLite and
Python take the first, JSON both. So each such character is replaced by U+FFFD where text comes in, and once more at the
ledger's door, whatever store is behind it: what is accepted, and what is kept, never depends on the store.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

REPLACEMENT = "\ufffd"
_BAD = re.compile("[\x00\ud800-\udfff]")
# A pair of escapes that is one character; half of one, or NUL; any other escape.
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPES = re.compile(_PAIR + rb"|(\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000))|\\.", re.DOTALL)


def is_storable(text: str) -> bool:
    """Whether every store holds the text as it is. Quick: it is asked of every value that is written."""
    return "\0" not in text if text.isascii() else _BAD.search(text) is None


def storable(text: str) -> str:
    """The text with every character that a store may refuse replaced; most texts are returned as they are."""
    return text if is_storable(text) else _BAD.sub(REPLACEMENT, text)


def storable_json(raw: bytes) -> bytes:
    """JSON whose strings hold no such character once they are read; all else in it stays as it was written."""
    if b"\\u" not in raw:
        return raw
    return _ESCAPES.sub(lambda found: b"\\ufffd" if found[1] else found[0], raw)


def _normal(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


# A person's or a model's words as a model takes them in.
Text = Annotated[str, BeforeValidator(_normal)]
