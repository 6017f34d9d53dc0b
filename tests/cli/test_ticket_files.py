"""Reading tickets from JSON Lines: good lines, and bad ones with number and reason."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.ticket_files import MAX_LINE_BYTES, TicketLine, raw_lines, read_lines
from tests.web.fakes import make_ticket

GOOD = make_ticket().model_dump_json().encode()
PRIVATE = "a@example.org 4111 1111 1111 1111"


def read(*raws: bytes, tenant: str | None = None) -> list[TicketLine]:
    return list(read_lines(raws, tenant))


def good_line(**changes: Any) -> bytes:
    return json.dumps(json.loads(GOOD) | changes).encode()


def test_good_lines_are_tickets_with_their_numbers() -> None:
    assert read(GOOD, b"\n", b"  \r\n", good_line(ticket_id="T-2")) == [
        TicketLine(1, make_ticket()),
        TicketLine(4, make_ticket("T-2")),
    ]


def test_a_byte_order_mark_is_ignored() -> None:
    assert read(b"\xef\xbb\xbf" + GOOD) == [TicketLine(1, make_ticket())]


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"{", "is not one JSON object in UTF-8 with unique keys"),
        (b"\xff\xfe", "is not one JSON object in UTF-8 with unique keys"),
        (GOOD + GOOD, "is not one JSON object in UTF-8 with unique keys"),
        (b'{"tenant": "a", "tenant": "b"}', "is not one JSON object in UTF-8 with unique keys"),
        (b"[" * 100_000, "is not one JSON object in UTF-8 with unique keys"),
        (b"[]", "is JSON, but not an object"),
        (b"3", "is JSON, but not an object"),
        (b'{"tenant": "acme", "ticket_id": "T-1"}', "customer_id: is missing"),
        (good_line(colour="red"), "colour: is not a field of a ticket"),
        (good_line(**{PRIVATE: 1}), "(unknown key): is not a field of a ticket"),
        (good_line(text="x" * 64_001), "text: is longer than 64,000 characters"),
        (b" " * MAX_LINE_BYTES + b"{}", "is longer than 262144 bytes"),
    ],
)
def test_a_bad_line_is_its_number_and_a_reason(raw: bytes, fault: str) -> None:
    first, second = read(raw, GOOD)
    assert (first.number, first.ticket, first.fault) == (1, None, fault)
    assert second == TicketLine(2, make_ticket())


def test_several_faults_are_one_sentence() -> None:
    (line,) = read(b'{"tenant": "A B"}')
    assert [part.partition(":")[0] for part in line.fault.split("; ")] == ["tenant", "ticket_id", "customer_id"]


@pytest.mark.parametrize("field", ["tenant", "ticket_id", "customer_id", "order_id", "subject", "text"])
def test_no_reason_quotes_the_line(field: str) -> None:
    (line,) = read(good_line(**{field: [PRIVATE]}))
    assert line.ticket is None
    assert "example" not in line.fault
    assert "4111" not in line.fault


def test_a_tenant_is_given_to_lines_that_name_none() -> None:
    bare = {key: value for key, value in json.loads(GOOD).items() if key != "tenant"}
    assert read(json.dumps(bare).encode(), tenant="globex") == [TicketLine(1, make_ticket(tenant="globex"))]
    assert read(GOOD, tenant="acme") == [TicketLine(1, make_ticket())]
    (line,) = read(GOOD, tenant="globex")
    assert line.fault == "tenant: the line names another tenant than --tenant globex"


@pytest.mark.parametrize("extra", [0, 1, 2, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES])
def test_a_line_is_kept_whole_up_to_the_limit_and_its_successor_always(extra: int) -> None:
    padded = GOOD + b" " * (MAX_LINE_BYTES - len(GOOD) + extra)
    first, second = read_lines(raw_lines(io.BytesIO(padded + b"\n" + GOOD)), None)
    assert (first.ticket is not None) == (extra == 0)
    assert second == TicketLine(2, make_ticket())


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_give_one_line_each_and_never_an_error(raws: list[bytes]) -> None:
    lines = read(*raws)
    assert all((line.ticket is None) == bool(line.fault) for line in lines)
    assert len(lines) <= len(raws)
