"""A signal raises once, and not inside a deferring block, whichever thread the system delivers it to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.signals import Stopped, defer_signals, ignore_signals, install_handlers

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Installs the handlers for one test, with a second thread that may receive signals."""
    before = [signal.getsignal(number) for number in NUMBERS]
    install_handlers()
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    yield
    ended.set()
    other.join()
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def send(number: int) -> None:
    """Sends a signal to this process, and lets the interpreter run its handler."""
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass


@pytest.mark.parametrize(("number", "unwinds"), [(NUMBERS[0], KeyboardInterrupt), *((n, Stopped) for n in NUMBERS[1:])])
def test_the_first_signal_unwinds_and_those_after_it_are_ignored(number: int, unwinds: type[BaseException]) -> None:
    with pytest.raises(unwinds):
        send(number)
    for later in NUMBERS:
        send(later)


def test_a_deferred_signal_is_raised_at_the_end_of_the_outermost_block() -> None:
    done: list[str] = []
    with pytest.raises(Stopped):  # noqa: PT012 - where it is raised is the point
        with defer_signals():
            with defer_signals():
                send(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_another_thread_does_not_defer_signals() -> None:
    inside, leave = threading.Event(), threading.Event()

    def defer() -> str:
        with defer_signals():
            inside.set()
            leave.wait(60)
        return "not interrupted"

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(defer)
        assert inside.wait(60)
        with pytest.raises(Stopped):
            send(signal.SIGTERM)
        leave.set()
        assert result.result(60) == "not interrupted"


def test_signals_are_ignored_during_the_shutdown() -> None:
    with ignore_signals():
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
