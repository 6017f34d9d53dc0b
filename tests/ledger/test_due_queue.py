"""The due queue: tasks are due soon after their report, then after pauses that double; closing forgets none."""

from __future__ import annotations

import threading
import time

import pytest

from app.ledger.recording.projector import AFTER_SECONDS, DueQueue
from tests.live import until

MOST = 10


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[DueQueue, Clock]:
    """An empty queue and its clock."""
    clock = Clock()
    return DueQueue(clock), clock


def taken(due: DueQueue, clock: Clock, most: int = MOST) -> list[str] | None:
    """The tasks that are due now, without waiting."""
    return due.take(most, until=clock.now)


def looks(due: DueQueue, clock: Clock, task_id: str, times: int) -> list[float]:
    """The pauses between the tries of a task whose history never shows the reported state."""
    pauses = []
    for _ in range(times):
        begun = clock.now
        due.again(task_id)
        while taken(due, clock) == []:
            clock.now += 0.01
        pauses.append(round(clock.now - begun, 1))
    return pauses


def test_what_was_told_is_due_a_moment_later() -> None:
    due, clock = made()
    due.add("a", ended=True)
    assert taken(due, clock) == []
    clock.now += AFTER_SECONDS
    assert taken(due, clock) == ["a"]
    assert taken(due, clock) == []


def test_the_oldest_news_come_first_and_no_more_than_asked_for() -> None:
    due, clock = made()
    for name in ("c", "a", "b"):
        due.add(name, ended=True)
        clock.now += 1
    assert len(due) == 3
    assert taken(due, clock, 2) == ["c", "a"]
    assert taken(due, clock, 2) == ["b"]
    assert len(due) == 0


def test_a_task_is_in_it_once() -> None:
    due, clock = made()
    due.add("a", ended=False)
    due.add("a", ended=True)
    due.again("a")
    assert len(due) == 1
    clock.now += 1
    assert taken(due, clock) == ["a"]
    assert taken(due, clock) == []


def test_pauses_double_up_to_a_limit() -> None:
    due, clock = made()
    assert looks(due, clock, "a", 8) == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]


def test_a_second_look_does_not_put_off_the_news() -> None:
    due, clock = made()
    due.add("a", ended=True)
    due.again("a")
    clock.now += AFTER_SECONDS
    assert taken(due, clock) == ["a"]


def test_only_a_task_that_is_said_to_have_ended_is_looked_at_until_it_has_and_not_for_ever() -> None:
    due, clock = made()
    due.add("rests", ended=False)
    due.add("ended", ended=True)
    assert not due.expects_more("rests")
    assert not due.expects_more("nobody told of it")
    clock.now += 1
    assert taken(due, clock) == ["ended", "rests"]
    found = 0
    while due.expects_more("ended"):
        looks(due, clock, "ended", 1)
        found += 1
    assert found == 8
    due.add("ended", ended=True)
    assert due.expects_more("ended"), "that is news"


def test_what_is_done_is_forgotten_unless_there_are_news() -> None:
    due, clock = made()
    looks(due, clock, "a", 3)
    due.done("a")
    assert looks(due, clock, "a", 1) == [0.4], "as if for the first time"
    due.add("a", ended=True)
    due.done("a")
    assert due.expects_more("a")
    clock.now += 1
    assert taken(due, clock) == ["a"]


def test_once_closed_it_gives_what_has_just_ended_and_what_is_due_and_then_comes_to_its_end() -> None:
    due, clock = made()
    due.add("due", ended=False)
    clock.now += 1
    due.again("later")
    due.add("rests", ended=False)
    due.add("ended", ended=True)
    due.close()
    assert taken(due, clock) == ["due", "ended"]
    assert taken(due, clock) is None


def test_once_closed_nobody_is_put_off() -> None:
    """Otherwise a slow sidecar would keep the process from ending."""
    due, clock = made()
    due.add("a", ended=True)
    due.close()
    assert taken(due, clock) == ["a"]
    due.again("a")
    clock.now += 1000
    assert taken(due, clock) is None


def test_a_task_that_is_never_where_it_was_said_to_be_is_looked_at_for_days() -> None:
    due, clock = made()
    assert looks(due, clock, "a", 2_000)[-1] == 15.0


def test_however_often_somebody_asks_for_a_look_it_does_not_become_later() -> None:
    due, clock = made()
    for _ in range(10):
        due.look("a")
        clock.now += 0.1
    assert taken(due, clock) == ["a"]


def test_who_waits_is_woken_by_news_and_by_the_end() -> None:
    due = DueQueue(time.monotonic)
    found: list[list[str] | None] = []

    def wait() -> None:
        while (taken := due.take(MOST, until=time.monotonic() + 60)) is not None:
            found.append(taken)

    thread = threading.Thread(target=wait)
    thread.start()
    due.add("a", ended=True)
    until(lambda: found == [["a"]], "the news")
    due.close()
    thread.join(60)
    assert not thread.is_alive()


def test_who_waits_comes_back_at_the_time_he_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ledger.recording.projector.AFTER_SECONDS", 3600.0)
    due = DueQueue(time.monotonic)
    due.add("a", ended=True)
    assert due.take(MOST, until=time.monotonic()) == []
    assert due.take(MOST, until=time.monotonic() + 0.01) == []


def test_what_is_told_shortly_after_each_other_is_taken_together() -> None:
    due, clock = made()
    for number, pause in enumerate((0.3, 0.5, 0.1)):
        due.add(f"t{number}", ended=True)
        clock.now += pause
    assert taken(due, clock) == ["t0", "t1"], "the third is too fresh: the sidecar may not have saved it"
    clock.now += 0.6
    assert taken(due, clock) == ["t2"]
