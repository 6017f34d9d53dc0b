"""Reads tickets from JSON Lines and help desk exports. A bad line is reported by number and reason, never by its text,
which may be a customer's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

from pydantic import ValidationError

from app.cli.faults import what_is_wrong
from app.domain import texts
from app.domain.errors import BadTicket
from app.domain.models import Ticket

MAX_LINE_BYTES = 256 * 1024
MAX_NAMED_FIELDS = 5


@dataclass(frozen=True)
class TicketLine:
    """One line of a file: a ticket, or in `fault` why it is not one."""

    number: int
    ticket: Ticket | None = None
    fault: str = ""


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream. To save memory, a line that is too long is cut to `MAX_LINE_BYTES` + 1 bytes."""
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        piece = raw
        while len(piece) > MAX_LINE_BYTES and not piece.endswith(b"\n"):
            piece = stream.readline(MAX_LINE_BYTES + 1)
        yield raw


def read_lines(raws: Iterable[bytes], tenant: str | None) -> Iterator[TicketLine]:
    """The tickets of JSON Lines, in order, without empty lines; `tenant` is for lines that name none."""
    for number, raw in enumerate(raws, start=1):
        text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if text.strip():
            yield _read_line(number, text, tenant)


def _read_line(number: int, raw: bytes, tenant: str | None) -> TicketLine:
    if len(raw.rstrip(b"\r\n")) > MAX_LINE_BYTES:
        return TicketLine(number, fault=f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        value = json.loads(raw, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        return TicketLine(number, fault="is not one JSON object in UTF-8 with unique keys")
    return _read_value(number, value, tenant)


def _read_value(number: int, value: Any, tenant: str | None) -> TicketLine:
    """One JSON value as a ticket."""
    if not isinstance(value, dict):
        return TicketLine(number, fault="is JSON, but not an object")
    if tenant is not None and value.setdefault("tenant", tenant) != tenant:
        return TicketLine(number, fault=f"tenant: the line names another tenant than --tenant {tenant}")
    try:
        return TicketLine(number, ticket=Ticket.model_validate(value))
    except ValidationError as error:
        return TicketLine(number, fault=_fault_text(error))


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A hook for `json` that builds an object. Raises ValueError if a key occurs twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return members


def _fault_text(error: ValidationError) -> str:
    errors = error.errors(include_input=False, include_url=False)[:MAX_NAMED_FIELDS]
    faults = [f"{_field(key)}: {what_is_wrong(key, fault)}" for fault in errors for key in [str(fault["loc"][0])]]
    return "; ".join(dict.fromkeys(faults))


def _field(key: str) -> str:
    """The key for a message; one that could be a customer's text is hidden."""
    return key if key.isascii() and key.isidentifier() and len(key) <= 40 else "(unknown key)"


# Help desk exports: JSON Lines, a JSON array or an object with one, or CSV; in UTF-8, UTF-16 or UTF-32.
#
# JSON Lines are read as a stream, and bad lines do not stop the others. Any other file is read whole first, and
# refused as a whole before a ticket is sent if it cannot be read.

MAX_FILE_BYTES = 256 * 1024 * 1024
# Column names that are accepted besides the field's own name.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "tenant": (),
    "ticket_id": ("id", "ticket", "ticket_number", "ticket_no"),
    "customer_id": ("customer", "customer_number", "requester_id"),
    "order_id": ("order", "order_number", "order_no"),
    "subject": ("title",),
    "text": ("description", "body", "message"),
}
_NEEDED = ("ticket_id", "customer_id")
_WRAPPERS = ("tickets", "data", "results", "items", "records")
_KNOWN_FORMS = "give JSON Lines (one ticket a line), a JSON array of tickets, or CSV with a header"


@dataclass(frozen=True)
class Export:
    """The contents of a file. `total` is the number of its tickets, None if unknown. `ignored_columns` are columns that
    are no fields of a ticket."""

    lines: Iterator[TicketLine]
    total: int | None
    ignored_columns: tuple[str, ...] = ()


def read_export(name: str, stream: BinaryIO, tenant: str | None, total: int | None) -> Export:
    """The tickets of a file. `tenant` is for tickets that name none; `total` is the number of lines, if known. Raises
    BadTicket for a file of an unknown form."""
    blank, first = b"", b""
    while not first.strip() and (first := stream.readline(MAX_LINE_BYTES + 1)):
        blank += b"" if first.strip() else first
    if not first.strip():
        return Export(iter(()), 0)
    encoding, mark = texts.encoding_of((blank + first)[:64])
    if encoding == "utf-8" and _is_json_lines(first[0 if blank else mark :]):
        before = [b"\n"] * blank.count(b"\n")
        lines = read_lines(chain(before, _rest_of(first, stream), raw_lines(stream)), tenant)
        head = next(lines)
        if head.ticket is None:  # perhaps every line has this fault
            return Export(iter(_refuse_common_fault(name, [head, *lines])), total)
        return Export(chain([head], lines), total)
    raw = blank + first + stream.read(MAX_FILE_BYTES)
    if len(raw) > MAX_FILE_BYTES:
        most = f"{MAX_FILE_BYTES // 2**20} MiB"
        raise BadTicket(f"{name}: is larger than {most}; give JSON Lines, which are read as a stream")
    try:
        text = texts.text_of(raw)
    except texts.NoText as error:
        raise BadTicket(f"{name}: {error}") from None
    ignored: list[str] = []
    tickets = _refuse_common_fault(name, list(_read_text(name, text, tenant, ignored)))
    return Export(iter(tickets), len(tickets), tuple(ignored))


def _refuse_common_fault(name: str, lines: list[TicketLine]) -> list[TicketLine]:
    """Returns the lines. Raises BadTicket if all of them have the same fault, since the file then holds no tickets."""
    faults = {line.fault for line in lines}
    if len(lines) > 1 and len(faults) == 1 and (fault := next(iter(faults))):
        fields = ", ".join(Ticket.model_fields)
        raise BadTicket(f"{name}: each of its {len(lines)} tickets: {fault}; a ticket has the fields {fields}")
    return lines


def _is_json_lines(first: bytes) -> bool:
    """Whether the first line of a file shows JSON Lines: an object that begins and ends on it, even an invalid one."""
    text = first.strip()
    if not text.startswith(b"{") or text == b"{":
        return False
    if text.endswith(b"}"):
        return not any(text.startswith(f'{{"{name}"'.encode()) and b"[" in text[: len(name) + 8] for name in _WRAPPERS)
    return len(first) > MAX_LINE_BYTES or not text.endswith((b",", b"[", b"{", b":"))


def _rest_of(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Yields the first line, and skips the rest of it in the stream if it was cut."""
    yield first
    while len(first) > MAX_LINE_BYTES and not first.endswith(b"\n"):
        first = stream.readline(MAX_LINE_BYTES + 1)


def _read_text(name: str, text: str, tenant: str | None, ignored: list[str]) -> Iterator[TicketLine]:
    head = text.lstrip()[:1]
    if head in ("{", "["):
        return _read_json(name, text, tenant)
    if head == "<":
        raise BadTicket(f"{name}: is HTML or XML; {_KNOWN_FORMS}")
    return _read_csv(name, text, tenant, ignored)


def _read_json(name: str, text: str, tenant: str | None) -> Iterator[TicketLine]:
    values: list[Any] = []
    decoder, at = json.JSONDecoder(object_pairs_hook=_unique_keys), 0
    while at < len(text):
        if text[at].isspace() or (text[at] == "," and values):
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise BadTicket(f"{name}: {where}: is not JSON ({error.msg}); {_KNOWN_FORMS}") from None
        except RecursionError:
            raise BadTicket(f"{name}: is nested deeper than any ticket; {_KNOWN_FORMS}") from None
        except ValueError as error:
            raise BadTicket(f"{name}: {_reason(error)}; {_KNOWN_FORMS}") from None
        values += _ticket_values(value)
    for number, value in enumerate(values, start=1):
        yield _read_value(number, value, tenant)


def _ticket_values(value: Any) -> Sequence[Any]:
    """The tickets in one JSON value: the items of an array, the array under a known key, or the value itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and _NEEDED[0] not in value:
        wrapped = [value[name] for name in _WRAPPERS if isinstance(value.get(name), list)]
        if len(wrapped) == 1:
            return list(wrapped[0])
    return [value]


def _read_csv(name: str, text: str, tenant: str | None, ignored: list[str]) -> Iterator[TicketLine]:
    first, _, rest = text.partition("\n")
    separator = first.strip().strip('"').lower()
    skipped, body = (1, rest) if separator.startswith("sep=") and len(separator) <= 5 else (0, text)
    header = next((line for line in body.splitlines() if line.strip()), "")
    delimiter = (separator[4:] or "\t") if skipped else max(",;\t", key=header.count)
    csv.field_size_limit(2**20)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    try:
        head = next((cells for cells in reader if any(cell.strip() for cell in cells)), None)
        if head is None:
            return
        columns = _columns(name, head, tenant)
        others = [cell.strip() for cell, field in zip(head, columns, strict=True) if not field]
        ignored += [cell[:40] for cell in others if cell]
        rows = [(reader.line_num + skipped, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        problem = str(error).partition("(")[0].strip()
        raise BadTicket(f"{name}: line {reader.line_num + skipped}: is not CSV ({problem}); {_KNOWN_FORMS}") from None
    for number, cells in rows:
        if len(cells) != len(columns):
            yield TicketLine(number, fault=f"{len(cells)} cells under {len(columns)} columns")
        else:
            value = {field: cell for field, cell in zip(columns, cells, strict=True) if field and cell.strip()}
            yield _read_value(number, value, tenant)


def _columns(name: str, header: Iterable[str], tenant: str | None) -> list[str]:
    """The ticket field of each column, empty for an unknown column. Raises BadTicket if a required field is missing, or
    a field has two columns."""
    names = ["_".join(cell.strip().lower().replace("-", " ").split()) for cell in header]
    fields = [next((field for field, others in _COLUMNS.items() if column in (field, *others)), "") for column in names]
    twice = sorted({field for field in fields if field and fields.count(field) > 1})
    needed = (*_NEEDED, *(() if tenant else ("tenant",)))
    missing = [field for field in needed if field not in fields]
    if not {"text", "subject"} & set(fields):
        missing.append("text")
    if missing:
        raise BadTicket(
            f"{name}: is neither JSON nor a table of tickets: its first line lacks {', '.join(missing)}; "
            f"head the columns {', '.join(Ticket.model_fields)}, or {_KNOWN_FORMS}"
        )
    if twice:
        raise BadTicket(f"{name}: several columns mean {', '.join(twice)}; keep one of each")
    return fields


def _reason(error: ValueError) -> str:
    return "contains a number with more digits than any id" if "digits" in str(error) else str(error)
