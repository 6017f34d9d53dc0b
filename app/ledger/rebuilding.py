"""Makes the record again from its sources, and the daily sums from the charges.

A task whose history Dapr holds no more keeps the record that it has: that is the only copy. Every other task's is
thrown away and made again by the price book that it was billed by, so the figures are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, bindparam, delete, select

from app.cost import book as price_book
from app.cost.book import PriceBook
from app.cost.rollup import Group
from app.errors import HistoryTampered, TaskNotFound
from app.history.model import Run
from app.ledger.prices import Prices
from app.ledger.reading import Records
from app.ledger.record_tables import ATTEMPTS, CHARGES, FAILURES, PAUSES, PRICE_BOOKS, PRICES, STEPS, TASKS
from app.ledger.saving import save
from app.ledger.sources import Sources
from app.ledger.summing import sum_anew
from app.ledger.tables import TICKETS

_AT_ONCE = 50
_OF_TASKS = (CHARGES, STEPS, ATTEMPTS, FAILURES, PAUSES)
_IDS = select(TICKETS.c.task_id).where(TICKETS.c.started).union(select(TASKS.c.task_id))
_FIRST_BOOK = (
    select(TASKS.c.task_id, PRICES.c.book_digest)
    .join(CHARGES, CHARGES.c.task_no == TASKS.c.task_no)
    .join(PRICES, PRICES.c.price_no == CHARGES.c.price_no)
    .where(TASKS.c.task_id.in_(bindparam("ids", expanding=True)), CHARGES.c.correction == 0)
    .order_by(CHARGES.c.at)
)
_NUMBERS = select(TASKS.c.task_no).where(TASKS.c.task_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did. `kept`: tasks without a history, left as they were. `repriced`: tasks whose price book cannot
    be had any more (another list is installed by now), so that today's was taken. `before`, `after`: all charges."""

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    before: Group
    after: Group


class Books:
    """The price books that tasks were billed by."""

    def __init__(self, engine: Engine, today: PriceBook) -> None:
        self._engine = engine
        with engine.connect() as connection:
            kept = {row.digest: row.content for row in connection.execute(select(PRICE_BOOKS))}
        restored = {digest: price_book.again(content) for digest, content in kept.items() if digest != today.digest}
        self._books: dict[str, PriceBook] = {digest: each for digest, each in restored.items() if each is not None}
        self._books[today.digest] = today

    def of(self, task_ids: Sequence[str]) -> Mapping[str, PriceBook | None]:
        """The book of each task's first charge; None when it cannot be had. Tasks without a charge are not in it."""
        with self._engine.connect() as connection:
            rows = connection.execute(_FIRST_BOOK, {"ids": list(task_ids)}).all()
        first: dict[str, str] = {}
        for row in rows:
            first.setdefault(row.task_id, row.book_digest)
        return {task_id: self._books.get(digest) for task_id, digest in first.items()}


def rebuild(sources: Sources, progress: Callable[[int, int], None]) -> Rebuilt:
    """Makes every task's record again. `progress` is told how many of how many are done. Raises Unreachable, with what
    was done so far done; it can be started again."""
    records = Records(sources.engine)
    before = records.report().total
    books = Books(sources.engine, sources.book)
    with sources.engine.connect() as connection:
        task_ids = sorted(connection.execute(_IDS).scalars())
    kept: list[str] = []
    repriced: list[str] = []
    prices = Prices(sources.engine)
    for start in range(0, len(task_ids), _AT_ONCE):
        some = task_ids[start : start + _AT_ONCE]
        runs = dict(_runs(sources, some))
        kept += [task_id for task_id in some if task_id not in runs]
        billed_by = books.of(some)
        repriced += [task_id for task_id in runs if billed_by.get(task_id, sources.book) is None]
        _replace(sources, runs, billed_by, prices)
        progress(min(start + _AT_ONCE, len(task_ids)), len(task_ids))
    with sources.engine.begin() as connection:
        for table in _OF_TASKS:  # what belongs to no task any more
            connection.execute(delete(table).where(table.c.task_no.not_in(select(TASKS.c.task_no))))
        sum_anew(connection)
    return Rebuilt(len(task_ids) - len(kept), tuple(kept), tuple(repriced), before, records.report().total)


def _runs(sources: Sources, task_ids: Sequence[str]) -> Iterator[tuple[str, Run]]:
    for task_id in task_ids:
        try:
            run = sources.history(task_id)
        except (TaskNotFound, HistoryTampered):
            continue
        if run.started_at is not None:
            yield task_id, run


def _replace(sources: Sources, runs: Mapping[str, Run], books: Mapping[str, PriceBook | None], prices: Prices) -> None:
    written = sources.written(list(runs))
    records = [sources.record(run, written[task_id], books.get(task_id)) for task_id, run in runs.items()]
    numbers = prices.numbers(charge for record in records for charge in record.charges)
    with sources.engine.begin() as connection:
        gone = list(connection.execute(_NUMBERS, {"ids": list(runs)}).scalars())
        for table in (*_OF_TASKS, TASKS):
            connection.execute(delete(table).where(table.c.task_no.in_(gone)))
        if records:
            save(connection, records, numbers)
