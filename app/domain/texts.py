"""Makes texts that every store can hold, and reads text files.

PostgreSQL cannot store NUL, and UTF-8 has no form for a lone surrogate; SQLite and Python accept the first, JSON both.
So each such character is replaced by U+FFFD at intake, and again before the ledger, whatever database it uses: what is
accepted and stored never depends on the database.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

REPLACEMENT = "\ufffd"
_BAD = re.compile("[\x00\ud800-\udfff]")
# Alternatives: a surrogate pair; a lone surrogate or NUL (group 1); any other escape.
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPES = re.compile(_PAIR + rb"|(\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000))|\\.", re.DOTALL)


def is_storable(text: str) -> bool:
    """Whether every store can hold the text. It must be fast, since every stored value is checked."""
    return "\0" not in text if text.isascii() else _BAD.search(text) is None


def storable(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD."""
    return text if is_storable(text) else _BAD.sub(REPLACEMENT, text)


def storable_json(raw: bytes) -> bytes:
    """The JSON with escapes of NUL and lone surrogates replaced by U+FFFD; everything else stays byte for byte."""
    if b"\\u" not in raw:
        return raw
    return _ESCAPES.sub(lambda match: b"\\ufffd" if match[1] else match[0], raw)


def _normalize(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


# The type of text fields in models: a string that every store can hold.
Text = Annotated[str, BeforeValidator(_normalize)]


# Reading text files of any origin: UTF-8 with or without a byte order mark, UTF-16 as Excel writes it, UTF-32.

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
    """A file is not text: the place in it, the problem and the remedy."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place}{': ' if place else ''}{problem}; {remedy}")
        self.place, self.problem, self.remedy = place, problem, remedy


def text_of(raw: bytes) -> str:
    """The text of a file's bytes, without the byte order mark. Raises NoText."""
    for signature, kind, remedy in _OTHER_FILES:
        if raw.startswith(signature):
            raise NoText("", f"it is {kind}", remedy)
    encoding, mark = encoding_of(raw[:64])
    return _decode(raw[mark:], encoding)


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a text by its first bytes, and the length of its byte order mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le", 0
    if head[0::2].count(0) > len(head) // 4:
        return "utf-16-be", 0
    return "utf-8", 0


def _decode(raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not {encoding.upper()} ({raw[error.start]:#04x})"
        raise NoText("", problem, "save it as UTF-8 (in Excel: CSV UTF-8)") from None
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise NoText(f"line {line}", "it contains a NUL, so it is not text", "export it again, or save it as UTF-8")
    return text
