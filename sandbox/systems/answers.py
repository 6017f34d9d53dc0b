"""The two shapes of an answer: pure, no I/O."""

from __future__ import annotations

Answer = dict[str, object]


def ok(**fields: object) -> Answer:
    """The answer of a system that did what it was asked."""
    return {"ok": True, **fields}


def refusal(code: str, message: str) -> Answer:
    """The answer of a system that understood and said no; asking again changes nothing."""
    return {"ok": False, "code": code, "message": message}
