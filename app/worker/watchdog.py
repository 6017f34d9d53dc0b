"""Ends Python code that keeps a thread and does not give it back.

What runs on an event loop cannot be timed out by that loop. So a second thread looks once a second whether the same
piece of work is still at it; after so many looks it raises an exception in the thread that works. Looks are counted
and not seconds: a process that was stopped, or a machine that stood still, is not taken for an endless loop.

It cannot reach a single call of C code that never returns; workflow turns and steps make none on a text of unknown
length. Costs a microsecond for each piece of work.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")

LOOKS = 30
_PAUSE_SECONDS = 1.0
# The exception was swallowed (by a finalizer, say): it is raised again after so many more looks.
_AGAIN_AFTER = 5

log = logging.getLogger(__name__)


class Overdue(RuntimeError):
    """The work did not come back; `place` says where it was, without any values."""

    def __init__(self, seconds: float, place: str) -> None:
        super().__init__(f"it did not come back within {seconds:.0f} s; it was at {place}")
        self.place = place


class _Enough(BaseException):
    """Raised in the thread that works. No `Exception`, which the work might catch as one of its own."""


class Watchdog:
    """Watches the pieces of work of one thread, one at a time. `watch` begins in another thread, `rest` ends it."""

    def __init__(self, *, looks: int = LOOKS, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self.limit_seconds = looks * pause_seconds
        self._looks = looks
        self._pause = pause_seconds
        self._lock = threading.Lock()
        self._worker: int | None = None  # the thread that is at work now
        self._number = 0  # of the piece of work
        self._raised = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Begins."""
        self._end.clear()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def rest(self) -> None:
        """Ends."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def run(self, work: Callable[[], Result]) -> Result:
        """Does the work here and now. Raises Overdue when it took too long, else what the work raises."""
        try:
            self._begin()
            try:
                return work()
            finally:
                self._done()
        except _Enough as enough:
            self._surely_done()
            raise Overdue(self.limit_seconds, _place(enough)) from None

    async def drive(self, work: Awaitable[Result]) -> Result:
        """Awaits the work; each stretch of it between two waits is watched. Raises Overdue."""
        result: Result = await _Driven(self, work)
        return result

    def _begin(self) -> None:
        with self._lock:
            self._number += 1
            self._worker = threading.get_ident()

    def _done(self) -> None:
        """Once this has returned nothing can be raised any more: it takes back what is on its way."""
        with self._lock:
            self._worker = None
            if self._raised:
                self._raised = False
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)

    def _surely_done(self) -> None:
        while True:
            try:
                self._done()
                return
            except _Enough:
                continue

    def _watch(self) -> None:
        seen, looks = 0, 0
        while not self._end.wait(self._pause):
            with self._lock:
                looks = looks + 1 if self._number == seen else 1
                seen = self._number
                late = looks > self._looks and (looks - self._looks) % _AGAIN_AFTER == 1
                if self._worker is not None and late:
                    self._raised = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._worker), ctypes.py_object(_Enough))


class _Driven:
    """An awaitable around another one."""

    def __init__(self, watchdog: Watchdog, work: Awaitable[Any]) -> None:
        self._watchdog = watchdog
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        step: Callable[[], Any] = inner.__next__
        while True:
            try:
                waits_for = self._watchdog.run(step)
            except StopIteration as end:
                return end.value
            try:
                sent = yield waits_for
            except BaseException as error:
                step = _thrown(inner, error)
            else:
                step = _sent(inner, sent)


def _sent(inner: Any, value: Any) -> Callable[[], Any]:
    return lambda: inner.send(value) if value is not None else next(inner)


def _thrown(inner: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: inner.throw(error)


def _place(enough: BaseException) -> str:
    """File, line and name of the innermost calls of the work itself."""
    frames = []
    trace = enough.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename != __file__:
            frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-3:])) or "its very end"
