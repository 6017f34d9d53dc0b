"""Which tasks are to be recorded, and when: soon after somebody told of them, and again until there is nothing new."""

from __future__ import annotations

import threading
from collections.abc import Callable

# daprd saves a turn's outcome a moment after the worker has delivered it. What is due this much later is taken as well:
# under load, many tasks share one transaction.
AFTER_SECONDS, _EARLY_SECONDS = 0.6, 0.4
# A task that was not where it was said to be is looked at again after pauses that double.
_TRIES = 8
_FIRST_SECONDS, _LONGEST_SECONDS = 0.4, 15.0


class Agenda:
    """A task is in it once. Thread-safe. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._due)

    @property
    def closed(self) -> bool:
        """Whether it is coming to its end."""
        return self._closed

    def add(self, task_id: str, *, ended: bool) -> None:
        """Puts a task in as news: it has come to its end, or only to rest."""
        with self._changed:
            if ended:
                self._tries[task_id] = 0
            self._due[task_id] = self._clock() + AFTER_SECONDS
            self._changed.notify()

    def look(self, task_id: str) -> None:
        """Puts a task in that is not in already: however often somebody asks, it does not become later."""
        with self._changed:
            self._due.setdefault(task_id, self._clock() + AFTER_SECONDS)
            self._changed.notify()

    def again(self, task_id: str) -> None:
        """Puts a task in for another look, later each time; once closed, there is none."""
        with self._changed:
            if self._closed:
                return
            tries = self._tries[task_id] = self._tries.get(task_id, 0) + 1
            pause = min(_FIRST_SECONDS * 2 ** min(tries - 1, _TRIES), _LONGEST_SECONDS)
            self._due.setdefault(task_id, self._clock() + pause)

    def expects_more(self, task_id: str) -> bool:
        """Whether a task that is said to have ended is still worth another look soon."""
        return self._tries.get(task_id, _TRIES) < _TRIES

    def done(self, task_id: str) -> None:
        """There is nothing more to come of a task, unless somebody tells of it."""
        with self._changed:
            if task_id not in self._due:
                self._tries.pop(task_id, None)

    def take(self, most: int, until: float) -> list[str] | None:
        """Waits for tasks that are due, until that moment; takes some of them out. Once closed, those that are due or
        new, and None when there are no more."""
        with self._changed:
            while not (due := self._ready(most)):
                if self._closed:
                    return None
                pause = min([until, *self._due.values()]) - self._clock()
                if pause <= 0 and self._clock() >= until:
                    return []
                self._changed.wait(max(pause, 0.001))
            for task_id in due:
                del self._due[task_id]
            return due

    def close(self) -> None:
        """Lets `take` come to its end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _ready(self, most: int) -> list[str]:
        now = self._clock()
        if not self._closed and any(at <= now for at in self._due.values()):
            now += _EARLY_SECONDS
        fresh = {task_id for task_id in self._due if self._closed and self._tries.get(task_id) == 0}
        ready = sorted((at, task_id) for task_id, at in self._due.items() if at <= now or task_id in fresh)
        return [task_id for _, task_id in ready[:most]]
