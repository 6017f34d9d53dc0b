"""JSON Lines into tickets. A bad line becomes its number and a reason, never its text. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import ValidationError

from app.cli.wording import what_is_wrong
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
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False)[:MAX_NAMED_FIELDS]
    named = [f"{_field(key)}: {what_is_wrong(key, fault)}" for fault in faults for key in [str(fault["loc"][0])]]
    return "; ".join(dict.fromkeys(named))


def _field(key: str) -> str:
    """A key that could be text is not repeated."""
    return key if key.isascii() and key.isidentifier() and len(key) <= 40 else "(unknown key)"
