"""Several processes write one ledger together: each has every so-many-th task, in the order of arrival."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from app.ledger.store.database import connect
from lab.bench.ledger.population import Population
from lab.bench.ledger.writing import LedgerWriter, Progress, Spent
from runtime.problems import Problem

_SPAWN = multiprocessing.get_context("spawn")  # a forked child would share the parent's connections


def write(url: str, population: Population, processes: int, progress: Progress) -> Spent:
    """Writes the whole population. Raises Problem when a process failed or died."""
    connect(url).dispose()  # the tables, before anybody else needs them
    if processes == 1:
        return _alone(url, population, progress)
    turn = _SPAWN.Lock() if url.startswith("sqlite") else None
    started = [_started(url, population, (place, processes), turn) for place in range(processes)]
    spent, open_ends = Spent(), [end for _, end in started]
    while open_ends:
        for end in wait(open_ends):
            assert isinstance(end, Connection)  # noqa: S101 - nothing else was given
            told = _told(end)
            if isinstance(told, int):
                progress(told)
            else:
                spent.add(told)
                open_ends.remove(end)
    for process, _ in started:
        process.join()
    return spent


def _alone(url: str, population: Population, progress: Progress) -> Spent:
    engine = connect(url)
    writer = LedgerWriter(engine, contextlib.nullcontext())
    writer.write(map(population.person, range(population.tasks)), progress)
    engine.dispose()
    return writer.spent


def _started(url: str, population: Population, part: tuple[int, int], turn: Any) -> tuple[SpawnProcess, Connection]:
    ours, theirs = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_work, args=(url, population, part, turn, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _told(end: Connection) -> int | Spent:
    try:
        told = end.recv()
    except EOFError:
        raise Problem("A writing process has died.", remedy="Is there enough memory and disk?") from None
    if isinstance(told, str):
        raise Problem(f"A writing process failed:\n{told}")
    assert isinstance(told, int | Spent)  # noqa: S101 - it tells nothing else
    return told


def _work(
    url: str,
    population: Population,
    part: tuple[int, int],
    turn: AbstractContextManager[Any] | None,
    end: Connection,
    parent: int,
) -> None:
    """One process, from start to end."""

    def progress(tasks: int) -> None:
        if os.getppid() != parent:
            raise SystemExit(f"the benchmark {parent} is gone")
        end.send(tasks)

    try:
        engine = connect(url)
        writer = LedgerWriter(engine, turn or contextlib.nullcontext())
        writer.write(map(population.person, range(part[0], population.tasks, part[1])), progress)
        engine.dispose()
    except Exception:
        end.send(traceback.format_exc())
    else:
        end.send(writer.spent)


class Pace:
    """How quickly it goes on: the rate of each tenth."""

    def __init__(self, tasks: int, say: Callable[[str], None]) -> None:
        self.rates: list[float] = []
        self._say = say
        self._tenth = max(tasks // 10, 1)
        self._tasks = tasks
        self._done, self._last, self._since = 0, 0, time.perf_counter()

    def progress(self, tasks: int) -> None:
        """So many more tasks are written."""
        self._done += tasks
        if self._done - self._last >= self._tenth or self._done == self._tasks:
            now = time.perf_counter()
            if self._done > self._last:
                self.rates.append((self._done - self._last) / (now - self._since))
                self._say(f"{self._done:,} made, {self.rates[-1]:,.0f} tasks/s")
            self._last, self._since = self._done, now
