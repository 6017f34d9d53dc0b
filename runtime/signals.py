"""Orderly shutdown by SIGINT, SIGTERM and SIGHUP: the first signal raises an exception in the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_deferred: list[int] | None = None  # the signals that came while signals are deferred; None otherwise


class Stopped(BaseException):
    """SIGTERM or SIGHUP arrived; unwinds the calls as KeyboardInterrupt does."""


def install_handlers() -> None:
    """Makes the first signal raise KeyboardInterrupt or `Stopped`. Later signals are ignored, since make sends a second
    one at once, which must not interrupt the shutdown."""
    for number in _ENDINGS:
        signal.signal(number, _handle)


@contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignores signals during the block, which must have its own deadlines."""
    before = [signal.signal(number, signal.SIG_IGN) for number in _ENDINGS]
    try:
        yield
    finally:
        for number, handler in zip(_ENDINGS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defers signals until the end of the block.

    A signal mask would not do: it belongs to one thread. Another thread would take the signal, and Python would run its
    handler in the main thread.
    """
    global _deferred
    if _deferred is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferred = signals = list[int]()
    try:
        yield
    finally:
        _deferred = None
        if signals:
            _unwind(signals[0])


def _handle(number: int, _frame: object) -> None:
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    if _deferred is not None:
        _deferred.append(number)
    else:
        _unwind(number)


def _unwind(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped
