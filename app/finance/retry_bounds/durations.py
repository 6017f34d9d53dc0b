"""Durations as Dapr writes them: Go's (`1m30s`, `200ms`), or a bare number of milliseconds. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns)"
_WHOLE = re.compile(rf"(?:{_PART})+")


def duration(value: Any) -> timedelta:
    """Raises ValueError for what Dapr could not read."""
    text = str(value).strip()
    if re.fullmatch(r"\d+", text):
        return timedelta(milliseconds=int(text))
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{value!r} is no duration; write it as in 30s or 1m30s")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text)))
