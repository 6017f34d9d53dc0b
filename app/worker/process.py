"""Set-up of the worker's process: logging, stop signals, garbage collection."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time

_LIBRARY_LEVELS = {
    "alembic": logging.WARNING,
    "WorkflowRuntime": logging.ERROR,
    "DaprWorkflowClient": logging.ERROR,
    "durabletask-client": logging.WARNING,
    "durabletask-worker": logging.WARNING,
    "httpx": logging.WARNING,
}


def log_to_stderr(level: str) -> None:
    """Logs to stderr with UTC times, at `level` for our code and at less for libraries."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=level, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    # The SDK logs each turn, each failed attempt without its task, and each query for an instance that does not exist,
    # which intake makes for every new ticket. Our own code logs what matters of this, with the task.
    for name, threshold in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(threshold)


def wait_for_stop_signal() -> None:
    """Blocks until SIGTERM or SIGINT arrives."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def freeze_loaded_objects() -> None:
    """Excludes all objects that exist now from garbage collection, because modules stay loaded."""
    gc.collect()
    gc.freeze()
