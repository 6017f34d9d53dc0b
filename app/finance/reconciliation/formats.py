"""Bills in JSON: the sandbox's, and the providers' reports. Every value is read or named in an error. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field

from app.finance.reconciliation.bill import BadBill, Bill, BillFormat, BillRow
from app.finance.reconciliation.bill_checks import Tokens, checked, part, shown
from app.finance.reconciliation.counts import Count
from app.finance.reconciliation.pages import Page, page_of
from app.finance.reconciliation.reports import ANTHROPIC_USAGE, OPENAI_USAGE, Report, report_of

_MOST_PLACES = 60


class _SandboxRow(BaseModel):
    id: int | str
    at: AwareDatetime
    protocol: Annotated[str, Field(max_length=40)] = ""
    model: str
    input_tokens: Tokens
    cached_tokens: Tokens
    output_tokens: Tokens
    billed: bool


def read_json(name: str, text: str) -> Bill | dict[Report, list[Page]]:
    """The sandbox's bill, or a report's pages, from one or more JSON values one after the other. Raises BadBill."""
    values = list(_values(name, text))
    if len(values) == 1 and isinstance(values[0], dict) and "rows" in values[0]:
        return _sandbox(name, values[0]["rows"])
    found: dict[Report, list[Page]] = {}
    alone = [each for value in values for each in (value if isinstance(value, list) else [value])]
    for number, value in enumerate(alone, start=1):
        report = report_of(value) if isinstance(value, dict) else None
        if report is None:
            raise _unknown(name)
        whole = "data" in value
        place = f"page {number}" if len(alone) > 1 or whole else ""
        page = page_of(name, place, value) if whole else Page(name, place, [value], whole=False)
        found.setdefault(report, []).append(page)
    if not found:
        raise _unknown(name)
    return found


def _unknown(name: str) -> BadBill:
    return BadBill(
        name,
        "",
        "its JSON is no bill that is known here",
        f"give the sandbox's bill ({{\"rows\": [...]}}), the answers of OpenAI's {OPENAI_USAGE}, of Anthropic's "
        f"{ANTHROPIC_USAGE}, or of their costs, or CSV with a header",
    )


def _values(name: str, text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_float=_exact, parse_constant=_no_number, object_pairs_hook=_without_twins)
    at = 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            found = text[error.pos : error.pos + 20].splitlines()
            raise BadBill(
                name, place, f"no JSON ({error.msg}) at {found[0] if found else 'its end'!r}", "export it again, whole"
            ) from None
        except RecursionError:
            raise BadBill(name, "", "it is nested deeper than any bill", "export it again") from None
        except ValueError as error:
            place = f"line {text.count(chr(10), 0, at) + 1} and what follows"
            problem = "a number of so many digits is none" if "digits" in str(error) else str(error)
            raise BadBill(name, place, problem, "export it again") from None
        yield value
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1


def _exact(text: str) -> Decimal:
    if len(text) > 100:
        raise ValueError("a number of so many digits is none")
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = None
    # Whoever turns 1e999999999 into a whole number, or writes it out, is busy for hours.
    if found is None or abs(found.adjusted()) > _MOST_PLACES:
        raise ValueError(f"{text[:40]} is beyond all numbers of a bill")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _without_twins(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} stands twice in one object")
    return found


def _sandbox(name: str, rows: Any) -> Bill:
    if not isinstance(rows, list):
        raise BadBill(name, "rows", f"{shown(rows)} is no list", "give the answer of the sandbox's GET /bill as it is")
    read = [checked(name, f"rows[{number}]", _SandboxRow, row) for number, row in enumerate(rows)]
    seen: dict[int | str, int] = {}
    for number, row in enumerate(read):
        if row.id in seen:
            problem = f"id {shown(row.id)} stands in rows[{seen[row.id]}] already"
            raise BadBill(name, f"rows[{number}]", problem, "give each row once")
        seen[row.id] = number
    return Bill(
        name,
        BillFormat.SANDBOX,
        tuple(_request(name, number, row) for number, row in enumerate(read) if row.billed),
        unbilled=sum(not row.billed for row in read),
        providers=frozenset(row.protocol for row in read if row.protocol),
    )


def _request(name: str, number: int, row: _SandboxRow) -> BillRow:
    if not row.model:
        problem = f"row {shown(row.id)} is billed and names no model"
        raise BadBill(name, f"rows[{number}]", problem, "add its model")
    try:
        at = row.at.astimezone(UTC)
    except OverflowError:
        raise BadBill(name, f"rows[{number}].at", f"{row.at} is no time", "export the bill again") from None
    cached = part(name, f"rows[{number}].cached_tokens", row.cached_tokens, row.input_tokens)
    count = Count(1, row.input_tokens, cached, row.output_tokens)
    return BillRow(f"row {row.id}", row.model, at, at, count, provider=row.protocol)
