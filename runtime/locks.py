"""File locks between processes. The kernel releases a lock when its holder ends, even by SIGKILL."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import UserError

# `is_held` takes the lock for a moment; other processes wait that long before they give up.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.02


class Locked(UserError):
    """Another process holds the lock. `holder` is its process id as text, or empty."""

    def __init__(self, message: str, *, remedy: str, holder: str) -> None:
        super().__init__(message, remedy=remedy)
        self.holder = holder


@contextmanager
def exclusive(path: Path, *, what: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock `path` during the block. If another process holds it, waits with `wait`, or raises `Locked` that
    names `what`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _lock(file.fileno(), path, what, wait)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        return not _try_lock(file.fileno())


def _lock(descriptor: int, path: Path, what: str, wait: bool) -> None:
    if wait:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    limit = time.monotonic() + _PATIENCE_SECONDS
    while not _try_lock(descriptor):
        if time.monotonic() > limit:
            holder = path.read_text().strip()
            raise Locked(
                f"{what} runs already (process {holder or 'unknown'}, lock {path}).",
                remedy="Stop it first, with Ctrl-C where it was started.",
                holder=holder,
            )
        time.sleep(_POLL_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
