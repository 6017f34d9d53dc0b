"""Separate processes for tests, forked from a server that has all modules loaded, so that a start takes milliseconds.

The functions that they run must be importable by name.
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
    """The fork server, which starts with the first process and ends with the tests."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.ledger.apart", "tests.ledger.recorder", "alembic.command", "psycopg"])
    return found


def start(task: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Runs `task` in a process that ends with the tests at the latest."""
    process = context().Process(target=task, args=arguments, daemon=True)
    process.start()
    return process


def exit_code(process: ForkServerProcess) -> int | None:
    """Waits for the end of a process. None if it did not end in time and was killed."""
    process.join(_SECONDS)
    if process.exitcode is None:
        kill(process)
        return None
    return process.exitcode


def kill(process: ForkServerProcess) -> None:
    """Kills a process (SIGKILL)."""
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def open_ledger(url: str, begin: Any) -> None:
    """Opens a ledger at the same time as other processes."""
    begin.wait(_SECONDS)
    database.connect(url).dispose()
