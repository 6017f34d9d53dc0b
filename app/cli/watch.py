"""Follows tasks until they rest: ended, or waiting for somebody."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.domain.models import TaskStatus, TaskView

AT_REST = frozenset(TaskStatus) - {TaskStatus.RUNNING}
TROUBLED = frozenset({TaskStatus.FAILED, TaskStatus.PARKED, TaskStatus.TERMINATED})
ROUND = 64  # tasks asked about before the next pause
PAUSE_SECONDS = 0.3


@dataclass(frozen=True)
class Watch:
    """How long to follow, and by which clock."""

    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def follow(
    task_ids: Iterable[str], get: Callable[[str], TaskView], watch: Watch, on_rest: Callable[[TaskView], None]
) -> tuple[str, ...]:
    """Hands over each task once it rests; returns the ids of those that still ran when the time was over."""
    outstanding = deque(dict.fromkeys(task_ids))
    deadline = watch.clock() + watch.timeout_seconds
    while outstanding and watch.clock() < deadline:
        if not _ask_round(outstanding, get, on_rest):
            watch.sleep(PAUSE_SECONDS)
    return tuple(outstanding)


def _ask_round(outstanding: deque[str], get: Callable[[str], TaskView], on_rest: Callable[[TaskView], None]) -> bool:
    """Asks about the first ones; those that run go to the end. True when most rested: ask on at once."""
    asked = min(ROUND, len(outstanding))
    rested = 0
    for _ in range(asked):
        view = get(outstanding[0])
        if view.status in AT_REST:
            outstanding.popleft()
            on_rest(view)
            rested += 1
        else:
            outstanding.rotate(-1)
    return rested * 2 >= asked
