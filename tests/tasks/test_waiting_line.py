"""How many wait for a sidecar that does not answer, and how long."""

from __future__ import annotations

import threading
import time

import pytest

from app.domain.deadline import remaining, within
from app.domain.errors import Unreachable
from app.tasks.workflow_client import Silence, WaitingLine


def test_what_is_left_is_the_shortest_of_all_bounds() -> None:
    assert remaining(7) == 7
    with within(5), within(60):
        assert 4 < remaining(7) <= 5
        with within(0):
            assert remaining(7) == 0
        assert remaining(1) == 1
    assert remaining(7) == 7


def test_no_more_than_its_number_wait_and_the_others_are_told() -> None:
    line, entered, let_go = WaitingLine(2, wait_seconds=0.05), threading.Semaphore(0), threading.Event()

    def wait() -> None:
        with line.place():
            entered.release()
            assert let_go.wait(60)

    waiting = [threading.Thread(target=wait) for _ in range(2)]
    for each in waiting:
        each.start()
        assert entered.acquire(timeout=60)
    with pytest.raises(Unreachable, match="too many requests wait"), line.place():
        pass
    let_go.set()
    for each in waiting:
        each.join()
    with line.place():
        pass


def test_after_a_call_that_got_no_answer_one_at_a_time_finds_out_whether_there_is_one_again() -> None:
    line, entered, let_go = WaitingLine(8), threading.Event(), threading.Event()
    with pytest.raises(Silence), line.place():
        raise Silence("no answer")

    def scout() -> None:
        with line.place():
            entered.set()
            assert let_go.wait(60)

    scouting = threading.Thread(target=scout)
    scouting.start()
    assert entered.wait(60)
    begun = time.monotonic()
    for _ in range(100):
        with pytest.raises(Unreachable, match="has not answered lately"), line.place():
            pass
    assert time.monotonic() - begun < 30, "they are told at once"
    let_go.set()
    scouting.join()
    with line.place(), line.place():
        pass


def test_an_answer_that_is_an_error_is_an_answer() -> None:
    line = WaitingLine(1)
    for _ in range(2):
        with pytest.raises(Unreachable, match="refuses"), line.place():
            raise Unreachable("it refuses")
