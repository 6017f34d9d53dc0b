"""The text of a bill's file, whatever saved it. Pure."""

from __future__ import annotations

from app import textfiles
from app.cost.reconciliation.bill import BadBill


def text_of(name: str, raw: bytes) -> str:
    """The text in `raw`. Raises BadBill for a file that holds none."""
    try:
        return textfiles.text_of(raw)
    except textfiles.NoText as error:
        raise BadBill(name, error.place, error.problem, error.remedy) from None
