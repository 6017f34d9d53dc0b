"""Compares version numbers; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int, int]
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?([-.]?(?:rc|alpha|beta)[.\d]*)?")


@dataclass(frozen=True)
class Range:
    """From `least` (included) to `below` (excluded)."""

    least: Version
    below: Version

    def holds(self, version: Version | None) -> bool:
        """Whether a version lies in the range; an unknown one does not."""
        return version is not None and self.least <= version < self.below

    def __str__(self) -> str:
        """As people write it."""
        return f">= {show(self.least)} < {show(self.below)}"


def parse(text: str) -> Version | None:
    """The first version number in a text, such as `go version go1.26.8 linux/amd64`; no pre-releases."""
    found = _NUMBER.search(text)
    if not found or found[4]:
        return None
    return int(found[1]), int(found[2]), int(found[3] or 0)


def show(version: Version | None) -> str:
    """Dotted, or "unknown"."""
    return ".".join(map(str, version)) if version else "unknown"
