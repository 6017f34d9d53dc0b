"""Finds a text in a request's body, however the body is written. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator


def says(body: bytes, text: str) -> bool:
    """Whether one of the texts in a JSON body holds `text`; a body that is no JSON says nothing."""
    try:
        return any(text in string for string in _texts(json.loads(body)))
    except ValueError:
        return False


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
