"""Makes the record again from its sources, and the daily sums from the charges.

A task whose history Dapr holds no more, or an older one of, keeps the record that it has: that is the only copy. Every
other task's is thrown away and made again by the price book that it was billed by, so the figures are the same. What
the ledger lacks and the histories hold comes back: tickets (without their texts), model calls, decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, bindparam, delete, select

from app.dapr.history.model import WorkflowRun
from app.domain.errors import TaskNotFound
from app.finance.rollup import Group
from app.ledger.reading.queries import LedgerQueries
from app.ledger.reading.summing import rebuild_daily_sums
from app.ledger.recording.recovering import (
    ended_without_history,
    keep_calls,
    keep_tickets,
    proven_calls,
    reset_standings,
    ticket_of,
)
from app.ledger.recording.saving import behind, save
from app.ledger.recording.sources import Sources
from app.ledger.store import standings
from app.ledger.store.charge_rows import Prices
from app.ledger.store.tables import ATTEMPTS, CHARGES, FAILURES, PAUSES, PRICE_BOOKS, PRICES, STEPS, TASKS, TICKETS
from app.pricing import book as price_book
from app.pricing.book import PriceBook

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
_KNOWN = select(TASKS).where(TASKS.c.task_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did. `kept`: tasks whose history is gone, cannot be read, or is older than the record; left as
    they were. `repriced`: tasks whose price book cannot be had any more (another list is installed by now), so that
    today's was taken. `restored`: tasks that the ledger had lost; their tickets have no texts. `before`, `after`: all
    charges."""

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    restored: tuple[str, ...]
    before: Group
    after: Group


class BilledPriceBooks:
    """The price books that tasks were billed by."""

    def __init__(self, engine: Engine, today: PriceBook) -> None:
        self._engine = engine
        with engine.connect() as connection:
            kept = {row.digest: row.content for row in connection.execute(select(PRICE_BOOKS))}
        restored = {digest: price_book.again(content) for digest, content in kept.items() if digest != today.digest}
        self._books: dict[str, PriceBook] = {digest: book for digest, book in restored.items() if book is not None}
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
    """Makes every task's record again, and what else of a task the ledger lacks. `progress` is told how many of how
    many are done. Raises Unreachable, with what was done so far done; it can be started again."""
    records = LedgerQueries(sources.engine)
    before = records.report().total
    books = BilledPriceBooks(sources.engine, sources.book)
    with sources.engine.connect() as connection:
        there = set(connection.execute(_IDS).scalars())
        arrived = set(connection.execute(select(TICKETS.c.task_id)).scalars())
    task_ids = sorted(there | set(sources.known()))
    kept: list[str] = []
    repriced: list[str] = []
    restored: list[str] = []
    prices = Prices(sources.engine)
    for start in range(0, len(task_ids), _AT_ONCE):
        some = task_ids[start : start + _AT_ONCE]
        billed_by = books.of(some)
        runs = _runs(sources, some, there)
        _recover(sources, runs)
        done = _replace(sources, runs, billed_by, prices)
        kept += [task_id for task_id in some if task_id in there and task_id not in done]
        restored += [task_id for task_id in runs if task_id not in arrived and ticket_of(runs[task_id]) is not None]
        repriced += [task_id for task_id in done if billed_by.get(task_id, sources.book) is None]
        progress(min(start + _AT_ONCE, len(task_ids)), len(task_ids))
    with sources.engine.begin() as connection:
        for table in _OF_TASKS:  # what belongs to no task any more
            connection.execute(delete(table).where(table.c.task_no.not_in(select(TASKS.c.task_no))))
        rebuild_daily_sums(connection)
    after = records.report().total
    return Rebuilt(len(task_ids) - len(kept), tuple(kept), tuple(repriced), tuple(restored), before, after)


def _runs(sources: Sources, task_ids: Sequence[str], there: Collection[str]) -> dict[str, WorkflowRun]:
    """The histories of these tasks; of those that are gone, what the ledger alone knows and has not recorded. Other
    workflows' are none of ours, unless they were recorded once."""
    read = sources.runs(task_ids)
    gone = [task_id for task_id, run in read.items() if isinstance(run, TaskNotFound)]
    found = {
        task_id: run
        for task_id, run in read.items()
        if isinstance(run, WorkflowRun)
        and run.started_at is not None
        and (task_id in there or ticket_of(run) is not None)
    }
    with sources.engine.connect() as connection:
        found |= ended_without_history(connection, gone)
    return found


def _recover(sources: Sources, runs: Mapping[str, WorkflowRun]) -> None:
    """Tickets and rows of the journal that the ledger lacks."""
    written = sources.written(list(runs))
    calls = [call for task_id, run in runs.items() for call in proven_calls(run, written[task_id].calls)]
    with sources.engine.begin() as connection:
        keep_tickets(connection, runs.values())
        keep_calls(connection, calls)


def _replace(
    sources: Sources, runs: Mapping[str, WorkflowRun], books: Mapping[str, PriceBook | None], prices: Prices
) -> frozenset[str]:
    """Returns whose record was made again: not where the ledger knows more than an older state store."""
    written = sources.written(list(runs))
    records = [sources.record(run, written[task_id], books.get(task_id)) for task_id, run in runs.items()]
    numbers = prices.numbers(charge for record in records for charge in record.charges)
    standing = sources.standing((runs[record.task_id], record) for record in records)
    with sources.engine.begin() as connection:
        known = {row.task_id: row for row in connection.execute(_KNOWN, {"ids": list(runs)})}
        records = [record for record in records if not behind(record, known.get(record.task_id))]
        ended = [record for record in records if record.ended_at is not None]
        reset_standings(connection, [record.task_id for record in ended])
        said = {task.task_id: standings.of_run(runs[task.task_id], task.status, None) for task in ended}
        gone = [known[record.task_id].task_no for record in records if record.task_id in known]
        for table in (*_OF_TASKS, TASKS):
            connection.execute(delete(table).where(table.c.task_no.in_(gone)))
        if records:
            save(connection, records, numbers, {**standing, **said})
    return frozenset(record.task_id for record in records)
