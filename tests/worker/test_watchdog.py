"""Work that does not return is ended; work that returns in time is not disturbed, even if it was close."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest

from app.worker.turns import Overdue, Watchdog


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    """A running watchdog with a short limit."""
    impatient = Watchdog(looks=3, pause_seconds=0.02)
    impatient.start()
    yield impatient
    impatient.stop()


def for_ever() -> None:
    """An endless loop that catches every `Exception`."""
    while True:
        try:
            time.perf_counter()
        except Exception:  # noqa: S112 - an endless loop may well look like this
            continue


def test_an_endless_loop_is_ended_and_its_place_is_reported(watchdog: Watchdog) -> None:
    with pytest.raises(Overdue, match=r"did not return within 0 s; it was at test_watchdog\.py:\d+ for_ever"):
        watchdog.run(for_ever)
    assert watchdog.run(lambda: "well again") == "well again"


def test_work_that_swallows_the_exception_gets_it_again(watchdog: Watchdog) -> None:
    blows: list[str] = []

    def stubborn() -> None:
        while len(blows) < 2:
            try:
                for_ever()
            except BaseException as blow:
                blows.append(type(blow).__name__)
                if len(blows) == 2:
                    raise

    with pytest.raises(Overdue):
        watchdog.run(stubborn)
    assert len(blows) == 2


def test_short_pieces_of_work_are_not_counted_together(watchdog: Watchdog) -> None:
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        watchdog.run(lambda: time.sleep(0.001))


def test_nothing_is_raised_once_the_work_is_over() -> None:
    hasty = Watchdog(looks=1, pause_seconds=0.001)
    hasty.start()
    chance = random.Random(3)
    ended = {"in time": 0, "overdue": 0}

    def busy(seconds: float) -> str:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        return "done"

    for _ in range(200):
        try:  # longer than the interpreter lets one thread run while another waits
            assert hasty.run(lambda: busy(chance.uniform(0.0, 0.025))) == "done"
            ended["in time"] += 1
        except Overdue:
            ended["overdue"] += 1
        busy(0.0002)  # an exception that came late would strike here
    hasty.stop()
    assert all(ended.values()), ended


def test_what_the_work_raises_comes_through(watchdog: Watchdog) -> None:
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 // 0)


def test_a_coroutine_may_wait_as_long_as_it_likes_but_not_hold_the_loop(watchdog: Watchdog) -> None:
    async def waits() -> str:
        await asyncio.sleep(0.3)
        return await asyncio.wait_for(asyncio.sleep(0, "there"), 1)

    async def holds() -> None:
        await asyncio.sleep(0)
        for_ever()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("its own")

    async def all_of_them() -> None:
        assert await watchdog.drive(waits()) == "there"
        with pytest.raises(Overdue, match="for_ever"):
            await watchdog.drive(holds())
        with pytest.raises(ValueError, match="its own"):
            await watchdog.drive(fails())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await watchdog.drive(asyncio.sleep(60))

    asyncio.run(all_of_them())
