"""A lock has one holder at a time, and is released when its holder dies."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import paths
from runtime.locks import Locked, exclusive, is_held

HOLD = """
import sys
from pathlib import Path
from runtime.locks import exclusive
with exclusive(Path(sys.argv[1]), what="A stack"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_with_the_process_id_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "lock"
    assert not is_held(lock)
    with exclusive(lock, what="A stack"):
        assert is_held(lock)
        with (
            pytest.raises(Locked, match=rf"A stack runs already \(process {os.getpid()}"),
            exclusive(lock, what="A stack"),
        ):
            pass
    assert not is_held(lock)
    with exclusive(lock, what="A stack"):
        pass


def test_checking_a_lock_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`is_held` takes the lock for a moment."""
    lock = tmp_path / "lock"
    with lock.open("a+") as checking:
        fcntl.flock(checking, fcntl.LOCK_EX)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(checking, fcntl.LOCK_UN))
        with exclusive(lock, what="A stack"):
            assert is_held(lock)


def test_the_kernel_releases_the_lock_of_a_killed_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=paths.ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_held(lock)
        holder.kill()
    assert not is_held(lock)
