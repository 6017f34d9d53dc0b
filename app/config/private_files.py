"""What we write is its owner's alone, whatever the umask: tickets, tokens, ledger, logs. Standard library only, for
`runtime/` too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UMASK = 0o077
_OTHERS = 0o077
# What lies in a state folder. Nothing else is touched: somebody may have named a folder that holds more than ours.
_OURS = ("*.sqlite*", "names.db*", "token", "sidecar-token", "secrets.json", "lock", "logs", "keys", "identity")
_OURS_TOO = ("scheduler", "sandbox")


def keep_private() -> None:
    """From now on, for this process and all that it starts."""
    os.umask(UMASK)


def private_folder(folder: Path) -> list[Path]:
    """Makes a state folder. Closes it, and what of ours lies in it, to others; returns what was open to them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shared = folder.resolve() in (Path.home(), Path.cwd(), *Path.cwd().parents)
    found = [] if shared else [folder]
    for pattern in (*_OURS, *_OURS_TOO):
        for path in folder.glob(pattern):
            found += [path, *_below(path)]
    return [path for path in found if _closed(path)]


def private_file(path: Path) -> None:
    """Makes an empty file for its owner alone, or closes the one that is there."""
    with suppress(OSError):  # whoever opens it next says why it cannot be
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        _closed(path)


def told(opened: list[Path]) -> str:
    """The note for what was open to others."""
    more = f" and {len(opened) - 1} more" if len(opened) > 1 else ""
    return f"{opened[0]}{more} could be read by other users of this machine; that is mended, but they may have read it"


def _below(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        for base, folders, files in os.walk(folder):
            yield from (Path(base, name) for name in (*folders, *files))


def _closed(path: Path) -> bool:
    """Whether it was open and is not any more. A link is left alone, and so is what is another user's."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not path.is_symlink() and mode & _OTHERS:
            path.chmod(mode & 0o7700)
            return True
    return False
