"""Writes made-up tasks with the product's own code, and says what it took; `processes.py` lets several processes do
it.
"""

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
from lab.bench.ledger.histories import Made, Sight, make
from lab.bench.ledger.population import BEGIN, Person, Population, book_at, books
from runtime.errors import UserError

NAMING = Naming(stage_of=STAGE_OF, parked_at=RESUME)
AT_ONCE = 16  # as many as the projector saves together
_TOLD_EVERY = 500
Progress = Callable[[int], None]  # told how many more tasks are written
Observer = Callable[[Sequence[TaskRecord]], None]


@dataclass
class Spent:
    """CPU seconds of this process by what they went to (a server's own are not among them), and how much was done."""

    seconds: dict[str, float] = field(default_factory=dict)
    tasks: int = 0
    records: int = 0  # more than tasks: who rests is recorded twice
    charges: int = 0

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Measures what is done within."""
        begun = time.process_time()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - begun

    def add(self, other: Spent) -> None:
        """Both together."""
        for what, seconds in other.seconds.items():
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds
        self.tasks += other.tasks
        self.records += other.records
        self.charges += other.charges

    def milliseconds(self, *what: str) -> float:
        """CPU time a task."""
        return 1000 * sum(self.seconds.get(each, 0.0) for each in what) / self.tasks if self.tasks else 0.0


class LedgerWriter:
    """One process's part. `turn` keeps SQLite's writers apart, who would poll for their turn otherwise."""

    def __init__(self, engine: Engine, turn: AbstractContextManager[Any], observer: Observer | None = None) -> None:
        self.spent = Spent()
        self._engine = engine
        self._turn = turn
        self._observer = observer
        self._prices = Prices(engine)
        self._books = books()
        self._arrived: list[Made] = []
        self._coming: list[tuple[datetime, int, Made, Sight]] = []
        self._due: dict[str, tuple[Made, Sight]] = {}

    def write(self, people: Iterable[Person], progress: Progress) -> None:
        """Makes the tasks of these people and writes them, each at its time."""
        self._keep_books()
        for count, person in enumerate(people, start=1):
            with self.spent.on("made up"):
                made = make(person)
            self._until(made.received_at)
            self._arrived.append(made)
            for sight in made.sights:
                heapq.heappush(self._coming, (sight.at, person.number, made, sight))
            if count % _TOLD_EVERY == 0:
                progress(_TOLD_EVERY)
            self.spent.tasks = count
        self._until(None)
        self._record()
        progress(self.spent.tasks % _TOLD_EVERY)

    def _until(self, moment: datetime | None) -> None:
        """Records what is to be recorded by then; all of it for None."""
        while self._coming and (moment is None or self._coming[0][0] <= moment):
            _, _, made, sight = heapq.heappop(self._coming)
            if sight.run.instance_id in self._due:
                self._record()
            self._due[sight.run.instance_id] = (made, sight)
            if len(self._due) == AT_ONCE:
                self._record()

    def _record(self) -> None:
        due, self._due = list(self._due.values()), {}
        if not due:
            return
        self._arrive()
        with self.spent.on("project"):
            records = [
                project(sight.run, Written(made.calls), self._book(sight), NAMING, sight.at) for made, sight in due
            ]
        with self.spent.on("save"):
            prices = self._prices.numbers(charge for record in records for charge in record.charges)
        with self._turn, self.spent.on("save"), self._engine.begin() as connection:
            save(connection, records, prices)
        self.spent.records += len(records)
        self.spent.charges += sum(len(record.charges) for record in records if record.ended_at is not None)
        if self._observer:
            self._observer(records)

    def _arrive(self) -> None:
        """What intake and journal have written before."""
        arrived, self._arrived = self._arrived, []
        if not arrived:
            return
        with self.spent.on("made up"):
            tickets, replies = (
                [histories.ticket_row(made) for made in arrived],
                [histories.reply_row(made) for made in arrived],
            )
            calls = [row for made in arrived for row in histories.call_rows(made)]
        with self._turn, self.spent.on("intake and journal"), self._engine.begin() as connection:
            for table, values in ((TICKETS, tickets), (MODEL_CALLS, calls), (REPLIES, replies)):
                connection.execute(insert(table), values)

    def _book(self, sight: Sight) -> PriceBook:
        return book_at(self._books, sight.run.started_at or sight.at)

    def _keep_books(self) -> None:
        with self._turn, self._engine.begin() as connection:
            statement = insert_or_ignore(connection, PRICE_BOOKS)
            kept = [{"digest": book.digest, "content": book.content, "first_used_at": BEGIN} for book in self._books]
            connection.execute(statement, kept)


# Several processes write one ledger together: each has every so-many-th task, in the order of arrival.

_SPAWN = multiprocessing.get_context("spawn")  # a forked child would share the parent's connections


def write_population(url: str, population: Population, processes: int, progress: Progress) -> Spent:
    """Writes the whole population. Raises UserError when a process failed or died."""
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
        raise UserError("A writing process has died.", remedy="Is there enough memory and disk?") from None
    if isinstance(told, str):
        raise UserError(f"A writing process failed:\n{told}")
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
