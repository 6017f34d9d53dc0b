"""Writes synthetic tasks with the product's code, in one or several processes, and measures the CPU time."""

from __future__ import annotations

import contextlib
import heapq
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from sqlalchemy import Engine, insert

from app.ledger.recording.projection import Naming, Written, project
from app.ledger.recording.saving import save
from app.ledger.store.charge_rows import Prices
from app.ledger.store.database import connect, insert_or_ignore
from app.ledger.store.tables import MODEL_CALLS, PRICE_BOOKS, REPLIES, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.pricing.book import PriceBook
from app.workflow.activities import STAGE_OF
from app.workflow.steps import RESUME
from lab.bench.ledger import histories
from lab.bench.ledger.histories import Sight, SyntheticTask, make_task
from lab.bench.ledger.population import BEGIN, Person, Population, book_at, books
from runtime.errors import UserError

NAMING = Naming(stage_of=STAGE_OF, parked_at=RESUME)
AT_ONCE = 16  # the projector's batch size
_REPORT_EVERY = 500
Progress = Callable[[int], None]  # called with the number of tasks written since the last call
Observer = Callable[[Sequence[TaskRecord]], None]


@dataclass
class Spent:
    """CPU seconds of this process by activity, without those of a database server, and what was written."""

    seconds: dict[str, float] = field(default_factory=dict)
    tasks: int = 0
    records: int = 0  # more than tasks: a task that waits for a person is recorded twice
    charges: int = 0

    @contextlib.contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Adds the CPU time of the block to an activity."""
        started = time.process_time()
        yield
        self.seconds[activity] = self.seconds.get(activity, 0.0) + time.process_time() - started

    def add(self, other: Spent) -> None:
        """Adds the figures of another process."""
        for activity, seconds in other.seconds.items():
            self.seconds[activity] = self.seconds.get(activity, 0.0) + seconds
        self.tasks += other.tasks
        self.records += other.records
        self.charges += other.charges

    def milliseconds(self, *activities: str) -> float:
        """CPU milliseconds a task for these activities together."""
        return (
            1000 * sum(self.seconds.get(activity, 0.0) for activity in activities) / self.tasks if self.tasks else 0.0
        )


class LedgerWriter:
    """Writes one process's share of the tasks. `turn` locks out SQLite's other writers, which would poll otherwise."""

    def __init__(self, engine: Engine, turn: AbstractContextManager[Any], observer: Observer | None = None) -> None:
        self.spent = Spent()
        self._engine = engine
        self._turn = turn
        self._observer = observer
        self._prices = Prices(engine)
        self._books = books()
        self._arrived: list[SyntheticTask] = []
        self._scheduled: list[tuple[datetime, int, SyntheticTask, Sight]] = []
        self._due: dict[str, tuple[SyntheticTask, Sight]] = {}

    def write(self, people: Iterable[Person], progress: Progress) -> None:
        """Makes these people's tasks and writes them in order of time."""
        self._save_price_books()
        for count, person in enumerate(people, start=1):
            with self.spent.on("made up"):
                task = make_task(person)
            self._record_until(task.received_at)
            self._arrived.append(task)
            for sight in task.sights:
                heapq.heappush(self._scheduled, (sight.at, person.number, task, sight))
            if count % _REPORT_EVERY == 0:
                progress(_REPORT_EVERY)
            self.spent.tasks = count
        self._record_until(None)
        self._record_batch()
        progress(self.spent.tasks % _REPORT_EVERY)

    def _record_until(self, moment: datetime | None) -> None:
        """Records the sights up to that moment, or all of them."""
        while self._scheduled and (moment is None or self._scheduled[0][0] <= moment):
            _, _, task, sight = heapq.heappop(self._scheduled)
            if sight.run.instance_id in self._due:
                self._record_batch()
            self._due[sight.run.instance_id] = (task, sight)
            if len(self._due) == AT_ONCE:
                self._record_batch()

    def _record_batch(self) -> None:
        due, self._due = list(self._due.values()), {}
        if not due:
            return
        self._write_arrivals()
        with self.spent.on("project"):
            records = [
                project(sight.run, Written(task.calls), self._book(sight), NAMING, sight.at) for task, sight in due
            ]
        with self.spent.on("save"):
            prices = self._prices.numbers(charge for record in records for charge in record.charges)
        with self._turn, self.spent.on("save"), self._engine.begin() as connection:
            save(connection, records, prices)
        self.spent.records += len(records)
        self.spent.charges += sum(len(record.charges) for record in records if record.ended_at is not None)
        if self._observer:
            self._observer(records)

    def _write_arrivals(self) -> None:
        """Writes the rows of intake and journal, which exist before a task is recorded."""
        arrived, self._arrived = self._arrived, []
        if not arrived:
            return
        with self.spent.on("made up"):
            tickets = [histories.ticket_row(task) for task in arrived]
            replies = [histories.reply_row(task) for task in arrived]
            calls = [row for task in arrived for row in histories.call_rows(task)]
        with self._turn, self.spent.on("intake and journal"), self._engine.begin() as connection:
            for table, values in ((TICKETS, tickets), (MODEL_CALLS, calls), (REPLIES, replies)):
                connection.execute(insert(table), values)

    def _book(self, sight: Sight) -> PriceBook:
        return book_at(self._books, sight.run.started_at or sight.at)

    def _save_price_books(self) -> None:
        with self._turn, self._engine.begin() as connection:
            statement = insert_or_ignore(connection, PRICE_BOOKS)
            rows = [{"digest": book.digest, "content": book.content, "first_used_at": BEGIN} for book in self._books]
            connection.execute(statement, rows)


_SPAWN = multiprocessing.get_context("spawn")  # a forked child would share the parent's connections


def write_population(url: str, population: Population, processes: int, progress: Progress) -> Spent:
    """Writes the whole population. Each of n processes writes every n-th task, in the order of arrival.

    Raises UserError if a process fails or dies.
    """
    connect(url).dispose()  # creates the tables before the processes start
    if processes == 1:
        return _write_alone(url, population, progress)
    turn = _SPAWN.Lock() if url.startswith("sqlite") else None
    workers = [_start_process(url, population, (place, processes), turn) for place in range(processes)]
    spent, open_ends = Spent(), [end for _, end in workers]
    while open_ends:
        for end in wait(open_ends):
            assert isinstance(end, Connection)  # noqa: S101 - open_ends has nothing else
            message = _receive(end)
            if isinstance(message, int):
                progress(message)
            else:
                spent.add(message)
                open_ends.remove(end)
    for process, _ in workers:
        process.join()
    return spent


def _write_alone(url: str, population: Population, progress: Progress) -> Spent:
    engine = connect(url)
    writer = LedgerWriter(engine, contextlib.nullcontext())
    writer.write(map(population.person, range(population.tasks)), progress)
    engine.dispose()
    return writer.spent


def _start_process(
    url: str, population: Population, part: tuple[int, int], turn: Any
) -> tuple[SpawnProcess, Connection]:
    ours, theirs = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_work, args=(url, population, part, turn, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _receive(end: Connection) -> int | Spent:
    try:
        message = end.recv()
    except EOFError:
        raise UserError("A writing process has died.", remedy="Check free memory and disk space.") from None
    if isinstance(message, str):
        raise UserError(f"A writing process failed:\n{message}")
    assert isinstance(message, int | Spent)  # noqa: S101 - the processes send nothing else
    return message


def _work(
    url: str,
    population: Population,
    part: tuple[int, int],
    turn: AbstractContextManager[Any] | None,
    end: Connection,
    parent: int,
) -> None:
    """The main function of a writing process."""

    def progress(tasks: int) -> None:
        if os.getppid() != parent:
            raise SystemExit(f"the benchmark (process {parent}) has ended")
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
    """Measures the rate of each tenth of the tasks."""

    def __init__(self, tasks: int, say: Callable[[str], None]) -> None:
        self.rates: list[float] = []
        self._say = say
        self._tenth = max(tasks // 10, 1)
        self._tasks = tasks
        self._done, self._last, self._since = 0, 0, time.perf_counter()

    def progress(self, tasks: int) -> None:
        """Counts `tasks` more written tasks."""
        self._done += tasks
        if self._done - self._last >= self._tenth or self._done == self._tasks:
            now = time.perf_counter()
            if self._done > self._last:
                self.rates.append((self._done - self._last) / (now - self._since))
                self._say(f"{self._done:,} written, {self.rates[-1]:,.0f} tasks/s")
            self._last, self._since = self._done, now
