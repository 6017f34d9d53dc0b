"""What a look at a price book can find."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"  # amounts are wrong, or missing
    WARNING = "warning"  # amounts may be wrong: a person looks


@dataclass(frozen=True)
class Finding:
    """One thing: where it stands (`file:line` when it is ours), what was found there, what is wrong, what to do."""

    severity: Severity
    where: str
    value: str
    problem: str
    remedy: str


def error(where: str, value: object, problem: str, remedy: str) -> Finding:
    """An error."""
    return Finding(Severity.ERROR, where, str(value), problem, remedy)


def warning(where: str, value: object, problem: str, remedy: str) -> Finding:
    """A warning."""
    return Finding(Severity.WARNING, where, str(value), problem, remedy)
