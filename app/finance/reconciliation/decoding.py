"""The text of a bill's file, whatever saved it. Pure."""

from __future__ import annotations

from app.domain import text_files
from app.finance.reconciliation.bill import BadBill


def text_of(name: str, raw: bytes) -> str:
    """The text in `raw`. Raises BadBill for a file that holds none."""
    try:
        return text_files.text_of(raw)
    except text_files.NoText as error:
        raise BadBill(name, error.place, error.problem, error.remedy) from None
