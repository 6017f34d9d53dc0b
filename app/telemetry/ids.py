"""Ids of traces and spans, made from the record: exporting a task twice gives the same spans. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

# https://www.w3.org/TR/trace-context/#traceparent-header; a later version may say more behind it.
_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The trace that a task belongs to, and the span in it that started the task; None where nobody exports it."""

    trace_id: int
    span_id: int | None


def trace_of(task_id: str, trace_parent: str) -> TraceParent:
    """The trace of the W3C `traceparent`, or one of the task's own where there is none.

    A parent that was not sampled is in nobody's collector: the trace keeps its id and begins with the task.
    """
    found = _TRACE_PARENT.fullmatch(trace_parent)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return TraceParent(_number(task_id, size=16), None)
    sampled = int(found[3], 16) & _SAMPLED
    return TraceParent(int(found[1], 16), int(found[2], 16) if sampled else None)


def span_id(*names: str) -> int:
    """The id of what these names identify together."""
    return _number("\0".join(names), size=8)


def _number(text: str, size: int) -> int:
    # All zeros is the one id that is not valid.
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "big") or 1
