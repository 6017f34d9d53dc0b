"""The small values that the history's model is made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """Where a workflow instance is, in Dapr's terms."""

    PENDING = "pending"  # accepted, no turn of it has been saved
    RUNNING = "running"
    SUSPENDED = "suspended"
    STALLED = "stalled"  # no worker can run it: version, patch, or a history that is too big
    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"
    CANCELED = "canceled"
    CONTINUED_AS_NEW = "continued_as_new"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in _ENDED


_ENDED = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TERMINATED, RunStatus.CANCELED})


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    OPEN = "open"  # no end yet
    LOST = "lost"  # the run ended first; whether the work was done, nobody recorded


class WaitOutcome(StrEnum):
    """How a wait for an external event ended."""

    ANSWERED = "answered"
    TIMED_OUT = "timed_out"
    OPEN = "open"
    ABANDONED = "abandoned"  # the run ended first


@dataclass(frozen=True, slots=True)
class Payload:
    """An input or a result, as the text that Dapr keeps; usually JSON."""

    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes in UTF-8."""
        return len(self.text.encode())

    def json(self) -> Any:
        """The value; None when the text is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def at(self, *path: str) -> Any:
        """The value below the keys of `path`; None where there is none."""
        value = self.json()
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed. `type` is the exception's class name in the worker's language; no stack trace is kept."""

    type: str
    message: str
    inner: Failure | None = None

    @property
    def root(self) -> Failure:
        """The innermost failure."""
        return self.inner.root if self.inner else self
