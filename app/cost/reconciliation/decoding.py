"""The text of a bill's file, whatever saved it: UTF-8 with or without a mark, Excel's UTF-16. Pure."""

from __future__ import annotations

from app.cost.reconciliation.bill import BadBill

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
    (b"%PDF", "a PDF", "export the usage or the costs as JSON or CSV; an invoice holds no tokens"),
    (b"{\\rtf", "formatted text (RTF)", "save it as plain text"),
)


def text_of(name: str, raw: bytes) -> str:
    """The text in `raw`. Raises BadBill for a file that holds none."""
    for sign, what, remedy in _OTHER_FILES:
        if raw.startswith(sign):
            raise BadBill(name, "", f"it is {what}", remedy)
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _decoded(name, raw[len(mark) :], encoding)
    head = raw[:64]
    if head[1::2].count(0) > len(head) // 4:
        return _decoded(name, raw, "utf-16-le")
    if head[0::2].count(0) > len(head) // 4:
        return _decoded(name, raw, "utf-16-be")
    return _decoded(name, raw, "utf-8")


def _decoded(name: str, raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is no {encoding.upper()} ({raw[error.start]:#04x})"
        raise BadBill(name, "", problem, "save it as UTF-8 (in Excel: CSV UTF-8)") from None
    if "\x00" in text:
        place = f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}"
        raise BadBill(name, place, "it holds a NUL, so it is no text", "export it again, or save it as UTF-8")
    return text
