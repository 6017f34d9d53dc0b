"""Tickets that had to wait are started when the engine is back, and while it is away it is asked less and less."""

from __future__ import annotations

import threading

import pytest

from app.domain.errors import Unreachable
from app.tasks.starter import Starter
from tests.live import until


class Desk:
    """Starts nothing while the engine is away."""

    def __init__(self) -> None:
        self.someone_waits = threading.Event()
        self.away = True
        self.waiting = 5
        self.asked = 0

    def start_waiting(self) -> int:
        """Two at a time."""
        self.asked += 1
        if self.away:
            raise Unreachable("nobody answers")
        started = min(2, self.waiting)
        self.waiting -= started
        return started


@pytest.mark.parametrize("told", [False, True])
def test_waiting_tickets_are_started_once_the_engine_is_back(told: bool) -> None:
    service = Desk()
    service.away = told
    starter = Starter(service, look_seconds=0.05, first_seconds=0.01, longest_seconds=0.02)
    starter.start()
    if told:
        until(lambda: service.asked > 3, "it asks again and again")
        service.away = False
    until(lambda: service.waiting == 0, "all are started")
    service.waiting = 1
    service.someone_waits.set()
    until(lambda: service.waiting == 0, "the next one, too")
    starter.stop()


def test_it_stops_at_once_also_while_it_waits() -> None:
    service = Desk()
    for service.away in (True, False):
        starter = Starter(service, look_seconds=600, first_seconds=600, longest_seconds=600)
        starter.start()
        until(lambda: service.asked, "it has begun")
        starter.stop()
