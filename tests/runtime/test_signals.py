"""A signal unwinds once, and not in the middle of what cannot bear it; whichever thread the system hands it to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.signals import Stopped, put_off, undisturbed, unwind_at_the_first

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of a stack, for one test; with a second thread, which takes what the main thread does not."""
    before = [signal.getsignal(number) for number in NUMBERS]
    unwind_at_the_first()
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    yield
    ended.set()
    other.join()
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def send(number: int) -> None:
    """Sends it to this process, and lets the interpreter look for it."""
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass


@pytest.mark.parametrize(("number", "unwinds"), [(NUMBERS[0], KeyboardInterrupt), *((n, Stopped) for n in NUMBERS[1:])])
def test_the_first_signal_unwinds_and_those_after_it_are_ignored(number: int, unwinds: type[BaseException]) -> None:
    with pytest.raises(unwinds):
        send(number)
    for each in NUMBERS:
        send(each)


def test_a_signal_waits_for_the_end_of_what_puts_it_off() -> None:
    done: list[str] = []
    with pytest.raises(Stopped):  # noqa: PT012 - where it is raised is the point
        with put_off():
            with put_off():
                send(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_another_thread_puts_nothing_off() -> None:
    inside, leave = threading.Event(), threading.Event()

    def look() -> str:
        with put_off():
            inside.set()
            leave.wait(60)
        return "undisturbed"

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        assert inside.wait(60)
        with pytest.raises(Stopped):
            send(signal.SIGTERM)
        leave.set()
        assert looking.result(60) == "undisturbed"


def test_the_stopping_is_not_cut_short() -> None:
    with undisturbed():
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
