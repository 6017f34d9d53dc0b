"""One at a time: file locks that the kernel releases when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import UserError

# `held` takes the lock for a moment to test it; this long such a test is waited for.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.02


class Locked(UserError):
    """Somebody else holds the lock; `holder` is their process id as text, possibly empty."""

    def __init__(self, message: str, *, remedy: str, holder: str) -> None:
        super().__init__(message, remedy=remedy)
        self.holder = holder


@contextmanager
def exclusive(path: Path, *, what: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock `path` for the block. Raises `Locked` when it is held, unless `wait` is set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _take(file.fileno(), path, what, wait)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def held(path: Path) -> bool:
    """Whether somebody holds the lock now."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        return not _taken(file.fileno())


def _take(descriptor: int, path: Path, what: str, wait: bool) -> None:
    if wait:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    limit = time.monotonic() + _PATIENCE_SECONDS
    while not _taken(descriptor):
        if time.monotonic() > limit:
            holder = path.read_text().strip()
            raise Locked(
                f"{what} runs already (process {holder or 'unknown'}, lock {path}).",
                remedy="Stop it first, with Ctrl-C where it was started.",
                holder=holder,
            )
        time.sleep(_POLL_SECONDS)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
