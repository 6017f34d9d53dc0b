"""Rebuilds the records from their sources, and the daily sums from the charges.

A task whose history is gone from Dapr, or older than its record, keeps the record, since that is the only copy. Every
other record is deleted and made again with the price book that it was billed by, so its figures stay the same. Tickets
(without their texts), model calls and decisions that the ledger lacks are restored from the histories.
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

_BATCH = 50
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
    """The result of a rebuild.

    tasks: the number of rebuilt records. kept: tasks whose record stays as it was, because their history is gone,
    unreadable or older. repriced: tasks that were priced with today's book, because theirs is no longer available
    (another price list is installed now). restored: tasks that were missing in the ledger; their tickets have no texts.
    before, after: the sum of all charges.
    """

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    restored: tuple[str, ...]
    before: Group
    after: Group


class BilledPriceBooks:
    """Finds the price books that tasks were billed by."""

    def __init__(self, engine: Engine, today: PriceBook) -> None:
        self._engine = engine
        with engine.connect() as connection:
            stored = {row.digest: row.content for row in connection.execute(select(PRICE_BOOKS))}
        restored = {digest: price_book.restore(content) for digest, content in stored.items() if digest != today.digest}
        self._books: dict[str, PriceBook] = {digest: book for digest, book in restored.items() if book is not None}
        self._books[today.digest] = today

    def of(self, task_ids: Sequence[str]) -> Mapping[str, PriceBook | None]:
        """The book of each task's first charge; None if it is no longer available. Tasks without a charge are left
        out."""
        with self._engine.connect() as connection:
            rows = connection.execute(_FIRST_BOOK, {"ids": list(task_ids)}).all()
        first: dict[str, str] = {}
        for row in rows:
            first.setdefault(row.task_id, row.book_digest)
        return {task_id: self._books.get(digest) for task_id, digest in first.items()}


def rebuild(sources: Sources, progress: Callable[[int, int], None]) -> Rebuilt:
    """Rebuilds all records and restores rows that the ledger lacks. Calls `progress` with the number of finished tasks
    and of all. Raises Unreachable; tasks finished by then stay rebuilt, and the rebuild can be repeated."""
    records = LedgerQueries(sources.engine)
    before = records.report().total
    books = BilledPriceBooks(sources.engine, sources.book)
    with sources.engine.connect() as connection:
        in_ledger = set(connection.execute(_IDS).scalars())
        with_ticket = set(connection.execute(select(TICKETS.c.task_id)).scalars())
    task_ids = sorted(in_ledger | set(sources.instance_ids()))
    kept: list[str] = []
    repriced: list[str] = []
    restored: list[str] = []
    prices = Prices(sources.engine)
    for start in range(0, len(task_ids), _BATCH):
        batch = task_ids[start : start + _BATCH]
        billed_by = books.of(batch)
        runs = _runs(sources, batch, in_ledger)
        _recover(sources, runs)
        rebuilt = _replace(sources, runs, billed_by, prices)
        kept += [task_id for task_id in batch if task_id in in_ledger and task_id not in rebuilt]
        restored += [task_id for task_id in runs if task_id not in with_ticket and ticket_of(runs[task_id]) is not None]
        repriced += [task_id for task_id in rebuilt if billed_by.get(task_id, sources.book) is None]
        progress(min(start + _BATCH, len(task_ids)), len(task_ids))
    with sources.engine.begin() as connection:
        for table in _OF_TASKS:  # rows whose task is gone
            connection.execute(delete(table).where(table.c.task_no.not_in(select(TASKS.c.task_no))))
        rebuild_daily_sums(connection)
    after = records.report().total
    return Rebuilt(len(task_ids) - len(kept), tuple(kept), tuple(repriced), tuple(restored), before, after)


def _runs(sources: Sources, task_ids: Sequence[str], in_ledger: Collection[str]) -> dict[str, WorkflowRun]:
    """The runs to record, by task id: started runs from Dapr, and runs of purged tasks of which the ledger has the end
    but no record. A run of another workflow is left out unless the ledger has it."""
    histories = sources.runs(task_ids)
    gone = [task_id for task_id, run in histories.items() if isinstance(run, TaskNotFound)]
    runs = {
        task_id: run
        for task_id, run in histories.items()
        if isinstance(run, WorkflowRun)
        and run.started_at is not None
        and (task_id in in_ledger or ticket_of(run) is not None)
    }
    with sources.engine.connect() as connection:
        runs |= ended_without_history(connection, gone)
    return runs


def _recover(sources: Sources, runs: Mapping[str, WorkflowRun]) -> None:
    """Restores tickets and journal rows that the ledger lacks."""
    written = sources.written(list(runs))
    calls = [call for task_id, run in runs.items() for call in proven_calls(run, written[task_id].calls)]
    with sources.engine.begin() as connection:
        keep_tickets(connection, runs.values())
        keep_calls(connection, calls)


def _replace(
    sources: Sources, runs: Mapping[str, WorkflowRun], books: Mapping[str, PriceBook | None], prices: Prices
) -> frozenset[str]:
    """Rebuilds the records of these runs, except those that are newer than the run. Returns the rebuilt tasks' ids."""
    written = sources.written(list(runs))
    records = [sources.record(run, written[task_id], books.get(task_id)) for task_id, run in runs.items()]
    numbers = prices.numbers(charge for record in records for charge in record.charges)
    standing = sources.standing((runs[record.task_id], record) for record in records)
    with sources.engine.begin() as connection:
        known = {row.task_id: row for row in connection.execute(_KNOWN, {"ids": list(runs)})}
        records = [record for record in records if not behind(record, known.get(record.task_id))]
        ended = [record for record in records if record.ended_at is not None]
        reset_standings(connection, [record.task_id for record in ended])
        final = {task.task_id: standings.of_run(runs[task.task_id], task.status, None) for task in ended}
        replaced = [known[record.task_id].task_no for record in records if record.task_id in known]
        for table in (*_OF_TASKS, TASKS):
            connection.execute(delete(table).where(table.c.task_no.in_(replaced)))
        if records:
            save(connection, records, numbers, {**standing, **final})
    return frozenset(record.task_id for record in records)
