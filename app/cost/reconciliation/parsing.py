"""Reads a provider's bill: tells by its content what it is, and refuses what it cannot read to the last row. Pure.

the sandbox's bill      {"rows": [...]}, a row a request
OpenAI's usage export   pages of buckets, as GET /v1/organization/usage/completions?group_by=model answers
CSV                     a header, then a row for each request, hour or day
"""

from __future__ import annotations

from app.cost.reconciliation.bill import BadBill, Bill, BillFormat, BillRow
from app.cost.reconciliation.formats import read_json
from app.cost.reconciliation.formats_csv import read_csv

__all__ = ["BadBill", "Bill", "BillFormat", "BillRow", "parse_bill"]

_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"


def parse_bill(name: str, text: str) -> Bill:
    """The bill in `text`; `name` is what errors call it. Raises BadBill."""
    content = text.removeprefix(_BYTE_ORDER_MARK)
    if not content.strip():
        raise BadBill(name, "", "it is empty", "export it again, as JSON or as CSV with a header")
    if content.lstrip()[0] in "{[":
        return read_json(name, content)
    return read_csv(name, content)
