"""What the worker's process does around its parts: logs, the memory it begins with, signals, its version."""

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
    """Times are UTC; what libraries say twice is left out."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=level, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    # The SDK logs every turn of every workflow, each failed attempt without its task, and each question about an
    # instance that does not exist yet, which is what intake asks about. Ours says the same once, with the task.
    for name, threshold in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(threshold)


def until_told_to_stop() -> None:
    """Waits for SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def keep_what_is_loaded() -> None:
    """What is loaded stays: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
