"""Keeps the agent's files (tickets, tokens, ledger, logs) private to their owner, whatever the umask.

Uses the standard library only, since `runtime/` uses it before anything is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UMASK = 0o077
_OTHERS = 0o077
# The agent's own files in a state folder. Others are not touched, since the configured folder may contain more.
_OURS = ("*.sqlite*", "names.db*", "token", "sidecar-token", "secrets.json", "lock", "logs", "keys", "identity")
_OURS_TOO = ("scheduler", "sandbox")


def keep_private() -> None:
    """Sets the umask of this process, and of all processes that it starts, to owner-only."""
    os.umask(UMASK)


def private_folder(folder: Path) -> list[Path]:
    """Creates a state folder, and closes it and the agent's files in it to other users. Returns the paths that were
    open to them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = folder.resolve() in (Path.home(), Path.cwd(), *Path.cwd().parents)
    paths = [] if shared else [folder]
    for pattern in (*_OURS, *_OURS_TOO):
        for path in folder.glob(pattern):
            paths += [path, *_descendants(path)]
    return [path for path in paths if _close_to_others(path)]


def private_file(path: Path) -> None:
    """Creates an empty file that only its owner can access, or closes an existing one to other users."""
    with suppress(OSError):  # the next code that opens the file reports the error
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        _close_to_others(path)


def exposure_warning(paths: list[Path]) -> str:
    """The warning about paths that were open to other users."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more} could be read by other users of this machine; now closed, but they may have read it"


def _descendants(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        for base, folders, files in os.walk(folder):
            yield from (Path(base, name) for name in (*folders, *files))


def _close_to_others(path: Path) -> bool:
    """Removes the rights of other users; returns whether there were any. Skips links, and files of other users."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not path.is_symlink() and mode & _OTHERS:
            path.chmod(mode & 0o7700)
            return True
    return False
