"""Orderly shutdown by SIGINT, SIGTERM and SIGHUP: the first signal unwinds the calls, outside of protected blocks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_put_off: list[int] | None = None  # what has come meanwhile; None while nothing is put off


class Stopped(BaseException):
    """SIGTERM or SIGHUP arrived; unwinds the stack as Ctrl-C does."""


def unwind_at_the_first() -> None:
    """From now on the first signal unwinds with KeyboardInterrupt or `Stopped`; those after it are ignored, since make
    passes on a second one at once, which must not cut the stopping short."""
    for number in _ENDINGS:
        signal.signal(number, _told_to_end)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No signal cuts this short; it must be bounded by deadlines of its own."""
    before = [signal.signal(number, signal.SIG_IGN) for number in _ENDINGS]
    try:
        yield
    finally:
        for number, handler in zip(_ENDINGS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def put_off() -> Iterator[None]:
    """A signal waits until this is over. Not by a signal mask, which is one thread's own: another thread takes the
    signal then, and Python runs its handler in the main thread all the same."""
    global _put_off
    if _put_off is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _put_off = came = list[int]()
    try:
        yield
    finally:
        _put_off = None
        if came:
            _unwind(came[0])


def _told_to_end(number: int, _frame: object) -> None:
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    if _put_off is not None:
        _put_off.append(number)
    else:
        _unwind(number)


def _unwind(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped
