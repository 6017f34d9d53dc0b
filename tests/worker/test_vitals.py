"""Liveness and readiness: answered without waiting, and correct if the loop or the ledger hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.domain.errors import NotReady
from app.worker import vitals
from app.worker.vitals import LEDGER_SECONDS, LOOP_SECONDS, Vitals
from tests.live import until


@dataclass
class FakeLoop:
    moved_at: float = 0.0
    connected: bool = True


class Database:
    """A ledger that can be away or hang."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.speaks = threading.Event()
        self.speaks.set()

    def ask(self) -> None:
        self.asked += 1
        self.speaks.wait(30)
        if self.away:
            raise OSError("connection refused")


class World:
    """The vitals of one process, with a clock that the test moves."""

    def __init__(self) -> None:
        self.loop, self.database, self.now = FakeLoop(), Database(), 0.0
        self.vitals = Vitals(self.loop, self.database.ask, lambda: self.now)

    def looked(self) -> None:
        """Waits until the database has been asked again."""
        before = self.database.asked
        until(lambda: self.database.asked > before + 1, "another look")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(vitals, "LOOK_SECONDS", 0.001)
    world = World()
    world.vitals.start()
    yield world
    world.database.speaks.set()
    world.vitals.stop()


def test_a_process_at_work_is_alive_and_ready(world: World) -> None:
    world.vitals.alive()
    world.vitals.ready()


def test_a_loop_that_stands_still_is_not_alive(world: World) -> None:
    world.now = LOOP_SECONDS
    world.vitals.alive()
    world.now += 1
    with pytest.raises(NotReady, match="has not moved for 61 s; restart this process"):
        world.vitals.alive()
    with pytest.raises(NotReady):
        world.vitals.ready()
    world.loop.moved_at = world.now
    world.vitals.alive()


def test_without_a_stream_it_is_alive_and_not_ready(world: World) -> None:
    world.loop.connected = False
    world.vitals.alive()
    with pytest.raises(NotReady, match="no stream of work"):
        world.vitals.ready()


@pytest.mark.parametrize("silent", [False, True])
def test_a_ledger_that_does_not_answer_makes_it_unready_until_it_does(world: World, *, silent: bool) -> None:
    world.looked()
    if silent:
        world.database.speaks.clear()
    else:
        world.database.away = True
        world.looked()
    world.now = world.loop.moved_at = LEDGER_SECONDS + 2
    until(lambda: not _is_ready(world), "the probe to notice")
    world.vitals.alive()
    world.database.away = False
    world.database.speaks.set()
    until(lambda: _is_ready(world), "the probe to notice that it answers again")


def _is_ready(world: World) -> bool:
    try:
        world.vitals.ready()
    except NotReady as fault:
        return "the ledger has not answered" not in str(fault)
    return True
