"""The text of a file that people hand over, whatever saved it: UTF-8 with or without a mark, Excel's UTF-16. Pure."""

from __future__ import annotations

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
