"""Processes of their own for tests: forked from a server that has everything loaded, so that each takes milliseconds.

What they run must be found by name, so it stands here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from app.ledger.store import database

_SECONDS = 60.0


def context() -> ForkServerContext:
    """The server is started with the first process; it ends with the tests."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.ledger.apart", "tests.ledger.recorder", "alembic.command", "psycopg"])
    return found


def start(task: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Runs `task` in a process that is gone when the tests are."""
    process = context().Process(target=task, args=arguments, daemon=True)
    process.start()
    return process


def exit_code(process: ForkServerProcess) -> int | None:
    """Waits for its end. None when it has not ended in time, and was killed."""
    process.join(_SECONDS)
    if process.exitcode is None:
        kill(process)
        return None
    return process.exitcode


def kill(process: ForkServerProcess) -> None:
    """Ends it as a crash would."""
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def open_ledger(url: str, begin: Any) -> None:
    """Opens a ledger together with others."""
    begin.wait(_SECONDS)
    database.connect(url).dispose()
