"""JSON Lines into tickets. A bad line becomes its number and a reason, never its text. Pure."""

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
    """One line of a file: a ticket, or why it is none."""

    number: int
    ticket: Ticket | None = None
    fault: str = ""


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream; one that is too long is cut to one byte more than allowed, not kept whole."""
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        piece = raw
        while len(piece) > MAX_LINE_BYTES and not piece.endswith(b"\n"):
            piece = stream.readline(MAX_LINE_BYTES + 1)
        yield raw


def read_lines(raws: Iterable[bytes], tenant: str | None) -> Iterator[TicketLine]:
    """The tickets of a file, in order; `tenant` is for lines that name none. Empty lines are passed over."""
    for number, raw in enumerate(raws, start=1):
        text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if text.strip():
            yield _read_line(number, text, tenant)


def _read_line(number: int, raw: bytes, tenant: str | None) -> TicketLine:
    if len(raw.rstrip(b"\r\n")) > MAX_LINE_BYTES:
        return TicketLine(number, fault=f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        given = json.loads(raw, object_pairs_hook=only_once)
    except (ValueError, RecursionError):
        return TicketLine(number, fault="is not one JSON object in UTF-8 with each key once")
    return read_given(number, given, tenant)


def read_given(number: int, given: Any, tenant: str | None) -> TicketLine:
    """What one JSON value is as a ticket."""
    if not isinstance(given, dict):
        return TicketLine(number, fault="is JSON, but not an object")
    if tenant is not None and given.setdefault("tenant", tenant) != tenant:
        return TicketLine(number, fault=f"tenant: the line names another tenant than --tenant {tenant}")
    try:
        return TicketLine(number, ticket=Ticket.model_validate(given))
    except ValidationError as error:
        return TicketLine(number, fault=_faults(error))


def only_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The pairs as one object. Raises ValueError when a key stands twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False)[:MAX_NAMED_FIELDS]
    named = [f"{_field(key)}: {what_is_wrong(key, fault)}" for fault in faults for key in [str(fault["loc"][0])]]
    return "; ".join(dict.fromkeys(named))


def _field(key: str) -> str:
    """A key that could be text is not repeated."""
    return key if key.isascii() and key.isidentifier() and len(key) <= 40 else "(unknown key)"


# A help desk's export into tickets: JSON Lines, a JSON array or the object around one, CSV; in UTF-8 or UTF-16.
#
# JSON Lines are read as they come, and a bad line is named and does not stop the rest. Anything else is read whole
# first: what cannot be read is one refusal of the file, before a ticket is sent.

MAX_FILE_BYTES = 256 * 1024 * 1024
# What a column may be called besides the field's own name.
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
    """The lines of a file. total: how many tickets it holds, None while nobody knows. passed_over: columns that are no
    field of a ticket."""

    lines: Iterator[TicketLine]
    total: int | None
    passed_over: tuple[str, ...] = ()


def read_export(name: str, stream: BinaryIO, tenant: str | None, total: int | None) -> Export:
    """The tickets of a file; `tenant` is for those that name none, `total` how many lines it has, if that is known.
    Raises BadTicket for a file that is none of the forms above."""
    blank, first = b"", b""
    while not first.strip() and (first := stream.readline(MAX_LINE_BYTES + 1)):
        blank += b"" if first.strip() else first
    if not first.strip():
        return Export(iter(()), 0)
    encoding, mark = texts.encoding_of((blank + first)[:64])
    if encoding == "utf-8" and _is_lines(first[0 if blank else mark :]):
        before = [b"\n"] * blank.count(b"\n")
        lines = read_lines(chain(before, _rest_of(first, stream), raw_lines(stream)), tenant)
        head = next(lines)
        if head.ticket is None:  # are all like that?
            return Export(iter(_not_all_alike(name, [head, *lines])), total)
        return Export(chain([head], lines), total)
    raw = blank + first + stream.read(MAX_FILE_BYTES)
    if len(raw) > MAX_FILE_BYTES:
        most = f"{MAX_FILE_BYTES // 2**20} MiB"
        raise BadTicket(f"{name}: is larger than {most}; give JSON Lines, which are read as they come")
    try:
        text = texts.text_of(raw)
    except texts.NoText as error:
        raise BadTicket(f"{name}: {error}") from None
    passed_over: list[str] = []
    tickets = _not_all_alike(name, list(_read_text(name, text, tenant, passed_over)))
    return Export(iter(tickets), len(tickets), tuple(passed_over))


def _not_all_alike(name: str, lines: list[TicketLine]) -> list[TicketLine]:
    """The lines. Raises BadTicket when every one of them is refused for one reason: then the file is another thing."""
    faults = {line.fault for line in lines}
    if len(lines) > 1 and len(faults) == 1 and (fault := next(iter(faults))):
        fields = ", ".join(Ticket.model_fields)
        raise BadTicket(f"{name}: each of its {len(lines)} tickets: {fault}; a ticket has the fields {fields}")
    return lines


def _is_lines(first: bytes) -> bool:
    """Whether the file is JSON Lines, by its first line: an object that ends with it, however wrong it is inside."""
    text = first.strip()
    if not text.startswith(b"{") or text == b"{":
        return False
    if text.endswith(b"}"):
        return not any(text.startswith(f'{{"{name}"'.encode()) and b"[" in text[: len(name) + 8] for name in _WRAPPERS)
    return len(first) > MAX_LINE_BYTES or not text.endswith((b",", b"[", b"{", b":"))


def _rest_of(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """The first line; what is left of one that is too long is passed over, as in every other line."""
    yield first
    while len(first) > MAX_LINE_BYTES and not first.endswith(b"\n"):
        first = stream.readline(MAX_LINE_BYTES + 1)


def _read_text(name: str, text: str, tenant: str | None, passed_over: list[str]) -> Iterator[TicketLine]:
    head = text.lstrip()[:1]
    if head in ("{", "["):
        return _read_json(name, text, tenant)
    if head == "<":
        raise BadTicket(f"{name}: is HTML or XML; {_KNOWN_FORMS}")
    return _read_csv(name, text, tenant, passed_over)


def _read_json(name: str, text: str, tenant: str | None) -> Iterator[TicketLine]:
    values: list[Any] = []
    decoder, at = json.JSONDecoder(object_pairs_hook=only_once), 0
    while at < len(text):
        if text[at].isspace() or (text[at] == "," and values):
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise BadTicket(f"{name}: {where}: is no JSON ({error.msg}); {_KNOWN_FORMS}") from None
        except RecursionError:
            raise BadTicket(f"{name}: is nested deeper than any ticket; {_KNOWN_FORMS}") from None
        except ValueError as error:
            raise BadTicket(f"{name}: {_reason(error)}; {_KNOWN_FORMS}") from None
        values += _tickets(value)
    for number, given in enumerate(values, start=1):
        yield read_given(number, given, tenant)


def _tickets(value: Any) -> Sequence[Any]:
    """The tickets in one JSON value: an array's, those under the one key of an export, or the value itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and _NEEDED[0] not in value:
        wrapped = [value[name] for name in _WRAPPERS if isinstance(value.get(name), list)]
        if len(wrapped) == 1:
            return list(wrapped[0])
    return [value]


def _read_csv(name: str, text: str, tenant: str | None, passed_over: list[str]) -> Iterator[TicketLine]:
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
        passed_over += [cell[:40] for cell in others if cell]
        rows = [(reader.line_num + skipped, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        problem = str(error).partition("(")[0].strip()
        raise BadTicket(f"{name}: line {reader.line_num + skipped}: is no CSV ({problem}); {_KNOWN_FORMS}") from None
    for number, cells in rows:
        if len(cells) != len(columns):
            yield TicketLine(number, fault=f"{len(cells)} cells under {len(columns)} columns")
        else:
            given = {field: cell for field, cell in zip(columns, cells, strict=True) if field and cell.strip()}
            yield read_given(number, given, tenant)


def _columns(name: str, header: Iterable[str], tenant: str | None) -> list[str]:
    """Our field under each column, empty for none. Raises BadTicket when one is missing or doubled."""
    names = ["_".join(cell.strip().lower().replace("-", " ").split()) for cell in header]
    fields = [next((field for field, others in _COLUMNS.items() if column in (field, *others)), "") for column in names]
    twice = sorted({field for field in fields if field and fields.count(field) > 1})
    needed = (*_NEEDED, *(() if tenant else ("tenant",)))
    lacking = [field for field in needed if field not in fields]
    if lacking or not {"text", "subject"} & set(fields):
        lacks = ", ".join([*lacking, *(() if {"text", "subject"} & set(fields) else ("text",))])
        raise BadTicket(
            f"{name}: is neither JSON nor a table of tickets: its first line lacks {lacks}; "
            f"head the columns {', '.join(Ticket.model_fields)}, or {_KNOWN_FORMS}"
        )
    if twice:
        raise BadTicket(f"{name}: several columns are taken for {', '.join(twice)}; leave one of each")
    return fields


def _reason(error: ValueError) -> str:
    return "holds a number of more digits than any id" if "digits" in str(error) else str(error)
