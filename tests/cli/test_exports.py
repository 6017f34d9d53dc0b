"""Reading help desk exports: every usual form is read, any other file is refused as a whole."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest

from app.cli import ticket_files
from app.cli.ticket_files import MAX_LINE_BYTES, Export, read_export
from app.domain.errors import BadTicket
from app.domain.models import Ticket

GIVEN: tuple[dict[str, Any], ...] = (
    {
        "tenant": "acme",
        "ticket_id": 4711,
        "customer_id": 100,
        "order_id": None,
        "subject": None,
        "text": "Kaputt, ü",
    },
    {"tenant": "acme", "ticket_id": "T-2", "customer_id": "C-2", "order_id": 9, "subject": "Hi", "text": None},
    {"tenant": "acme", "ticket_id": "T-3", "customer_id": "C-3"},
)
TICKETS = [
    Ticket(tenant="acme", ticket_id="4711", customer_id="100", text="Kaputt, ü"),
    Ticket(tenant="acme", ticket_id="T-2", customer_id="C-2", order_id="9", subject="Hi"),
    Ticket(tenant="acme", ticket_id="T-3", customer_id="C-3"),
]
LINES = "".join(json.dumps(ticket) + "\n" for ticket in GIVEN)
CSV = (
    "tenant,ticket_id,customer_id,order_id,subject,text\n"
    'acme,4711,100,,,"Kaputt, ü"\nacme,T-2,C-2,9,Hi,\nacme,T-3,C-3,,,\n'
)


def export(text: str | bytes, tenant: str | None = None) -> Export:
    raw = text.encode() if isinstance(text, str) else text
    return read_export("export", io.BytesIO(raw), tenant, None)


def tickets(text: str | bytes, tenant: str | None = None) -> list[Ticket | str]:
    return [line.ticket or line.fault for line in export(text, tenant).lines]


def refusal(text: str | bytes) -> str:
    with pytest.raises(BadTicket) as error:
        export(text)
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text",
    [
        LINES,
        "\n\n" + LINES,
        LINES.replace("\n", "\r\n"),
        json.dumps(GIVEN),
        json.dumps(GIVEN, indent=2),
        json.dumps({"tickets": GIVEN, "count": 3}),
        json.dumps({"count": 3, "data": GIVEN}, indent=2),
        "\n".join(json.dumps(ticket, indent=2) for ticket in GIVEN),
        CSV,
        CSV.replace("\n", "\r\n"),
        "sep=,\n" + CSV,
    ],
)
def test_every_usual_form_is_read(text: str, encoding: str) -> None:
    assert tickets(text.encode(encoding)) == TICKETS


def test_a_table_by_other_names_and_signs() -> None:
    text = "Ticket number;Requester id;Description;Priority\n4711;100;Kaputt, ü;high\n"
    contents = export(text, tenant="acme")
    assert (contents.ignored_columns, contents.total) == (("Priority",), 1)
    assert [line.ticket for line in contents.lines] == TICKETS[:1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"PK\x03\x04", "it is an Excel workbook or another zip archive; save the sheet as CSV (UTF-8)"),
        (LINES.encode("utf-16")[:-1] + b"\xd8", "is not UTF-16"),
        ("<tickets/>", "is HTML or XML; give JSON Lines"),
        ("[{}, {]", "line 1, column 7: is not JSON"),
        ("[" * 100_000, "is nested deeper than any ticket"),
        ('[{"ticket_id": ' + "9" * 5000 + "}]", "contains a number with more digits than any id"),
        ('[{"ticket_id": 1, "ticket_id": 2}]', "a key occurs twice"),
        (
            "hello\nworld\n",
            "is neither JSON nor a table of tickets: its first line lacks ticket_id, customer_id, tenant",
        ),
        ("tenant,id,ticket,customer_id,text\na,b,c,d,e\n", "several columns mean ticket_id"),
        ('tenant,ticket_id,customer_id,text\na,"b,c,d\n', "line 2: is not CSV"),
        ('{"id": 1}\n{"id": 2}\n{"id": 3}\n', "each of its 3 tickets: tenant: is missing; ticket_id: is missing"),
        ('[{"id": 1}, {"id": 2}]', "each of its 2 tickets: tenant: is missing"),
        ("[1, 2]", "each of its 2 tickets: is JSON, but not an object"),
    ],
)
def test_any_other_file_is_refused_as_a_whole(text: str | bytes, said: str) -> None:
    assert said in refusal(text)


def test_a_file_that_is_too_large_to_be_read_whole_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_files, "MAX_FILE_BYTES", 100)
    assert "is larger than 0 MiB; give JSON Lines, which are read as a stream" in refusal(json.dumps(GIVEN * 9))
    assert len(tickets(LINES * 9)) == 27


def test_a_bad_ticket_does_not_stop_the_others() -> None:
    for text in (LINES + '{"tenant": "acme"}\n', json.dumps([*GIVEN, {"tenant": "acme"}])):
        assert tickets(text) == [*TICKETS, "ticket_id: is missing; customer_id: is missing"]
    assert tickets("{broken}\n" + LINES)[1:] == TICKETS
    assert tickets(CSV + "acme,T-9\n") == [*TICKETS, "2 cells under 6 columns"]


def test_lines_are_read_as_a_stream() -> None:
    class Endless(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            pytest.fail("all of it was read")

    lines = read_export("-", Endless((LINES * 1000).encode()), None, None).lines
    assert [next(lines).ticket for _ in range(3)] == TICKETS


def test_a_first_line_that_is_too_long_is_one_bad_line() -> None:
    long = json.dumps(GIVEN[0] | {"text": "x" * 2 * MAX_LINE_BYTES}) + "\n"
    assert tickets(long + LINES) == [f"is longer than {MAX_LINE_BYTES} bytes", *TICKETS]
    assert tickets(json.dumps([{**ticket, "text": "x" * 60_000} for ticket in GIVEN * 9]))[-1] != ""


def test_nothing() -> None:
    for text in ("", "\n\n", "\ufeff"):
        assert tickets(text) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_part_of_a_file_is_lost_silently(seed: int) -> None:
    """A file that is truncated or has a changed byte is read completely, or something is reported."""
    dice = random.Random(seed)
    whole = dice.choice((LINES, json.dumps(GIVEN), CSV)).encode(dice.choice(("utf-8", "utf-16")))
    cut = whole[: dice.randrange(len(whole))]
    try:
        results = tickets(cut)
    except BadTicket:
        return
    assert [result for result in results if isinstance(result, Ticket)] == TICKETS[: len(results)] or any(
        isinstance(result, str) for result in results
    )
