"""Takes the agent's user message apart: header lines, subject, ticket. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OPENING, CLOSING = "<ticket>", "</ticket>"
_NONE = ("", "none", "null", "-")


@dataclass(frozen=True)
class Prompt:
    """What a stage is told. Absent values are empty or None."""

    subject: str = ""
    text: str = ""
    order_id: str | None = None  # in the form, or as classified
    category: str = ""
    account: Mapping[str, Any] = field(default_factory=dict)


def read_prompt(message: str) -> Prompt:
    """Reads `Name: value` lines up to the ticket, and the ticket up to its last closing mark."""
    head, _, rest = message.partition(OPENING)
    text = rest.rpartition(CLOSING)[0] if CLOSING in rest else rest
    lines = (line.partition(":") for line in head.splitlines())
    headers = {name.strip().lower(): value.strip() for name, colon, value in lines if colon}
    order_id = headers.get("order in the form", headers.get("order", ""))
    return Prompt(
        subject=headers.get("subject", ""),
        text=text.strip(),
        order_id=None if order_id.lower() in _NONE else order_id,
        category=headers.get("category", "").lower(),
        account=_object(headers.get("account", "")),
    )


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
