"""Reads a provider's bill: tells by its content what it is, and refuses what it cannot read to the last row. Pure.

the sandbox's bill              {"rows": [...]}, a row a request
OpenAI's and Anthropic's usage  pages of buckets, by model, in any order and any number of files
OpenAI's and Anthropic's costs  likewise, beside the usage or alone
CSV                             a header, then a row for each request, hour, day or other stretch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.finance.reconciliation.bill import BadBill, Bill, BillFormat, BillRow, refuse_overlaps, text_of
from app.finance.reconciliation.bill_csv import read_csv
from app.finance.reconciliation.bill_json import Page, Report, read_json

__all__ = ["BadBill", "Bill", "BillFormat", "BillRow", "parse_bill", "parse_bills", "text_of"]

_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_ONE_AT_A_TIME = "hold them against the record one after the other"


def parse_bill(name: str, text: str) -> Bill:
    """The bill in `text`; `name` is what errors call it. Raises BadBill."""
    return parse_bills([(name, text)])


def parse_bills(files: Sequence[tuple[str, str]]) -> Bill:
    """The one bill in several files, each with its name: a report's pages, its usage and its costs, a table's parts.
    Raises BadBill."""
    whole = files[0][0] if len(files) == 1 else f"{files[0][0]} and {len(files) - 1} more"
    pages: dict[Report, list[Page]] = {}
    bills: list[Bill] = []
    for name, text in files:
        read = _read(name, text)
        if isinstance(read, Bill):
            bills.append(read)
            continue
        for report, found in read.items():
            pages.setdefault(report, []).extend(found)
    bills += [report.bill(whole, found) for report, found in pages.items()]
    if len(bills) == 1:
        return replace(bills[0], name=whole)
    return _together(whole, bills)


def _read(name: str, text: str) -> Bill | dict[Report, list[Page]]:
    content = text.removeprefix(_BYTE_ORDER_MARK)
    if not content.strip():
        raise BadBill(name, "", "it is empty", "export it again, as JSON or as CSV with a header")
    if content.lstrip()[0] in "{[":
        return read_json(name, content)
    if content.lstrip()[0] == "<":
        raise BadBill(name, "", "it is HTML or XML", "export it as JSON or as CSV with a header")
    return read_csv(name, content)


def _together(name: str, bills: Sequence[Bill]) -> Bill:
    """Tables of one kind, or a provider's usage with its costs."""
    counting = [bill for bill in bills if bill.counts]
    whose = {bill.providers for bill in bills}
    if {bill.format for bill in bills} == {BillFormat.CSV}:
        rows = tuple(replace(row, place=f"{bill.name}, {row.place}") for bill in bills for row in bill.rows)
        if len({row.one_request for row in rows}) > 1:
            raise BadBill(name, "", "some rows are requests and some are sums", _ONE_AT_A_TIME)
        if rows and not rows[0].one_request:
            refuse_overlaps(name, rows)
        _refuse_twins(name, rows)
    elif len(counting) > 1 or len(whose) > 1:
        kinds = ", ".join(f"{bill.name} ({bill.format})" for bill in bills)
        raise BadBill(name, "", f"these are several bills: {kinds}", _ONE_AT_A_TIME)
    else:
        rows = counting[0].rows if counting else ()
    ends = [bill.until for bill in bills if bill.until]
    starts = [bill.since for bill in bills if bill.since]
    return Bill(
        name,
        (counting or bills)[0].format,
        rows,
        since=min(starts, default=None),
        until=max(ends, default=None),
        unbilled=sum(bill.unbilled for bill in bills),
        unread=tuple(dict.fromkeys(column for bill in bills for column in bill.unread)),
        providers=frozenset(provider for bill in bills for provider in bill.providers),
        amounts=tuple(amount for bill in bills for amount in bill.amounts),
        counts=bool(counting),
        further=tuple(dict.fromkeys(each for bill in bills for each in bill.further)),
    )


def _refuse_twins(name: str, rows: Sequence[BillRow]) -> None:
    """Raises BadBill when two files hold the same sum: one was given twice, or under two names."""
    seen: dict[BillRow, str] = {}
    for row in rows:
        same = replace(row, place="")
        if (
            same in seen
            and not row.one_request
            and seen[same].partition(", line ")[0] != row.place.partition(", line ")[0]
        ):
            raise BadBill(name, row.place, f"it is the same as {seen[same]}", "give each file once")
        seen.setdefault(same, row.place)
