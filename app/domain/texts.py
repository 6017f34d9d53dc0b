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


# The text of a file that people hand over, whatever saved it: UTF-8 with or without a mark, Excel's UTF-16.

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_OTHER_FILES = (
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "save the sheet as CSV (UTF-8), or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (b"%PDF", "a PDF", "export it as JSON or CSV"),
    (b"{\\rtf", "formatted text (RTF)", "save it as plain text"),
)


class NoText(ValueError):
    """A file that holds no text: which place in it, what is wrong, what to do about it."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place}{': ' if place else ''}{problem}; {remedy}")
        self.place, self.problem, self.remedy = place, problem, remedy


def text_of(raw: bytes) -> str:
    """The text in `raw`, without a mark. Raises NoText."""
    for sign, what, remedy in _OTHER_FILES:
        if raw.startswith(sign):
            raise NoText("", f"it is {what}", remedy)
    encoding, mark = encoding_of(raw[:64])
    return _decoded(raw[mark:], encoding)


def encoding_of(head: bytes) -> tuple[str, int]:
    """How a text that begins so is encoded, and how many bytes of it are its mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le", 0
    if head[0::2].count(0) > len(head) // 4:
        return "utf-16-be", 0
    return "utf-8", 0


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is no {encoding.upper()} ({raw[error.start]:#04x})"
        raise NoText("", problem, "save it as UTF-8 (in Excel: CSV UTF-8)") from None
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise NoText(f"line {line}", "it holds a NUL, so it is no text", "export it again, or save it as UTF-8")
    return text
