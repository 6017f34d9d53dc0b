"""The ledger benchmark on a tiny ledger: synthetic tasks are recorded like real ones, and all figures are measured."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine, Row, Select, func, select, update

from app.domain.models import CallState, UsageBasis
from app.finance.rollup import Dimension, rollup
from app.ledger.reading.queries import LedgerQueries
from app.ledger.recording import projector
from app.ledger.recording.sources import Sources
from app.ledger.store.database import connect
from app.ledger.store.tables import CHARGES, DAILY_COSTS, REPLIES, TICKETS
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import CallRecord, Charge
from lab.bench.ledger import questions, results, stores, writing
from lab.bench.ledger.__main__ import measure
from lab.bench.ledger.histories import SyntheticTask, make_task
from lab.bench.ledger.population import Ending, Population, books, choose_ending
from lab.bench.ledger.stores import Database, SqliteStore
from lab.bench.ledger.writing import LedgerWriter, Spent
from runtime.errors import UserError
from tests.servers import PostgresServer, ensure_installed

TASKS = 300
BY = (Dimension.TENANT, Dimension.STAGE, Dimension.OUTCOME, Dimension.MODEL, Dimension.DAY)


@dataclass(frozen=True)
class Ledger:
    """A ledger and the tasks that were written into it."""

    engine: Engine
    tasks: Sequence[SyntheticTask]
    records: dict[str, TaskRecord]  # the last record of each task
    spent: Spent
    store: SqliteStore

    @property
    def charges(self) -> list[Charge]:
        """The charges of all tasks, as the projector made them."""
        return [charge for record in self.records.values() for charge in record.charges]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """300 tasks on SQLite."""
    store = SqliteStore(tmp_path_factory.mktemp("ledger"))
    engine = connect(store.url)
    records: dict[str, TaskRecord] = {}
    writer = LedgerWriter(
        engine, contextlib.nullcontext(), lambda batch: records.update((record.task_id, record) for record in batch)
    )
    population = Population(TASKS)
    writer.write(map(population.person, range(TASKS)), lambda _: None)
    tasks = [make_task(population.person(number)) for number in range(TASKS)]
    yield Ledger(engine, tasks, records, writer.spent, store)
    engine.dispose()


def test_the_report_is_the_sum_of_all_charges(ledger: Ledger) -> None:
    assert len(ledger.records) == TASKS
    assert LedgerQueries(ledger.engine).report(BY) == rollup(ledger.charges, BY)
    assert LedgerQueries(ledger.engine).report([]).total.charges == len(ledger.charges) > 20 * TASKS


def test_a_report_that_is_not_the_sum_of_the_charges_stops_the_benchmark(ledger: Ledger) -> None:
    questions.check(ledger.store, TASKS)
    number = next(row.task_no for row in _rows(ledger.engine, select(CHARGES).where(CHARGES.c.consumed_quantity > 0)))
    _shift(ledger.engine, number, 1)
    try:
        with pytest.raises(UserError, match="not the sum of their charges"):
            questions.check(ledger.store, TASKS)
    finally:
        _shift(ledger.engine, number, -1)


def test_the_journal_and_intake_hold_what_the_projector_would_read(ledger: Ledger) -> None:
    sources = Sources(ledger.engine, lambda _: pytest.fail("no history is read"), books()[0], writing.NAMING, _now)
    read = sources.written([task.ticket.task_id for task in ledger.tasks])
    for task in ledger.tasks:
        assert read[task.ticket.task_id].calls == _oldest_first(task.calls)
    with ledger.engine.connect() as connection:
        tickets = connection.execute(select(TICKETS).order_by(TICKETS.c.sequence)).all()
        assert connection.execute(select(func.count()).select_from(REPLIES)).scalar_one() == TASKS
    assert {row.task_id for row in tickets} == set(ledger.records)
    assert all(row.recorded for row in tickets), "every task has ended, and its record is final"


def test_a_task_is_read_as_it_was_recorded(ledger: Ledger) -> None:
    waited = next(task.ticket.task_id for task in ledger.tasks if len(task.sights) == 2)
    read, recorded = LedgerQueries(ledger.engine).record(waited), ledger.records[waited]
    assert (read.steps, read.pauses, read.outcome) == (recorded.steps, recorded.pauses, recorded.outcome)
    assert sum(1 for span in recorded.pauses if span.label == "decision") == 1
    assert sorted(map(_charge_key, read.charges)) == sorted(map(_charge_key, recorded.charges))


def test_synthetic_tasks_are_like_real_ones(ledger: Ledger) -> None:
    calls = [call for task in ledger.tasks for call in task.calls]
    assert 2 < len(calls) / TASKS < 3.5
    assert {call.state for call in calls} >= {CallState.SETTLED, CallState.FAILED}
    assert {call.usage.basis for call in calls} >= {UsageBasis.REPORTED, UsageBasis.ESTIMATED}
    assert 6 < sum(len(record.steps) for record in ledger.records.values()) / TASKS < 8
    assert len({charge.tenant for charge in ledger.charges}) == 20
    assert len({charge.book_digest for charge in ledger.charges}) == 3
    assert len({charge.model for charge in ledger.charges if charge.model}) >= 5
    assert any(charge.wasted and charge.contracted_cost for charge in ledger.charges)
    people = Population(20_000)
    assert {choose_ending(people.person(number).chance) for number in range(20_000)} == set(Ending)


def test_the_same_seed_makes_the_same_tasks_in_any_order() -> None:
    forth = [make_task(Population(50).person(number)) for number in range(50)]
    back = [make_task(Population(50).person(number)) for number in reversed(range(50))]
    assert forth == back[::-1]
    assert forth[0] != make_task(Population(50, seed=8).person(0))


def test_batches_are_as_large_as_the_projectors() -> None:
    assert projector._BATCH == writing.AT_ONCE


def test_a_small_run_measures_all_figures(tmp_path: Path) -> None:
    figures = measure(Database.SQLITE, 60, 1, tmp_path, times=2)
    assert not list(tmp_path.iterdir()), "the database is deleted"
    assert (figures.tasks, figures.spent.tasks, len(figures.rates)) == (60, 60, 1)
    assert set(figures.spent.seconds) == {"made up", "intake and journal", "project", "save"}
    assert 0 < figures.milliseconds < 1000
    assert set(figures.bytes_per_task) == {*stores.GROUPS, "other"}
    assert min(figures.bytes_per_task.values()) > 0
    assert len(figures.timings) == 7
    assert all(len(timing.warm) == 2 and timing.size for timing in figures.timings if "one day" not in timing.question)
    results.write(tmp_path / "figures.json", {"machine": "this"}, [figures])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["ledgers"][0]["bytes_per_task"]["record"] == round(figures.bytes_per_task["record"], 1)
    console = Console(width=200, record=True)
    results.show(console, {"machine": "this"}, [figures])
    assert "report by tenant and stage, one month, in at most 1 s" in console.export_text()


def test_several_processes_write_the_same_ledger_as_one(tmp_path: Path, ledger: Ledger) -> None:
    store, progress = SqliteStore(tmp_path), list[int]()
    spent = writing.write_population(store.url, Population(TASKS), 2, progress.append)
    assert (spent.tasks, spent.records, spent.charges) == (
        ledger.spent.tasks,
        ledger.spent.records,
        ledger.spent.charges,
    )
    assert sum(progress) == TASKS
    engine = connect(store.url)
    assert LedgerQueries(engine).report(BY) == rollup(ledger.charges, BY)
    engine.dispose()


def test_the_error_of_a_writing_process_is_reported(tmp_path: Path) -> None:
    without_weights = Population(10, 7, ())
    with pytest.raises(UserError, match=r"failed:(?s:.)+number of weights does not match"):
        writing.write_population(SqliteStore(tmp_path).url, without_weights, 2, lambda _: None)


def test_on_postgresql_the_sums_are_as_exact() -> None:
    ensure_installed()
    with PostgresServer() as server:
        store = stores.PostgresStore(server)
        writing.write_population(store.url, Population(80), 1, lambda _: None)
        store.settle()
        questions.check(store, 80)
        sizes = stores.group_sizes(store.sizes())
        assert set(sizes) == {*stores.GROUPS, "other"}
        store.cool()
        engine = connect(store.url)
        with engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(DAILY_COSTS)).scalar_one() > 80
        engine.dispose()


def test_goals_are_judged_on_the_largest_ledger_and_growth_against_the_smallest() -> None:
    small, large = _figures(10, seconds=1.0, size=1000), _figures(100, seconds=10.0, size=10_000)
    assert [goal.met for goal in results.goals([small, large])] == [True] * 4
    slow = _figures(100, seconds=20.0, size=20_000, asked=1.5)
    assert [goal.met for goal in results.goals([small, slow])] == [True, False, False, False]


def _figures(tasks: int, seconds: float, size: int, asked: float = 0.5) -> results.Figures:
    return results.Figures(
        database=Database.SQLITE,
        version="",
        tasks=tasks,
        processes=1,
        seconds=seconds,
        rates=(tasks / seconds,),
        spent=Spent({"project": 0.0005 * tasks, "save": 0.0005 * tasks}, tasks, tasks, tasks),
        settled_seconds=0,
        sizes={"tasks": size},
        timings=(questions.Timing(questions.GOAL, 1, None, (asked,)),),
        others_cores=0,
    )


def _charge_key(charge: Charge) -> tuple[str, Decimal | None, Decimal | None]:
    return charge.id, charge.consumed_quantity, charge.contracted_cost


def _rows(engine: Engine, query: Select[Any]) -> Sequence[Row[Any]]:
    with engine.connect() as connection:
        return connection.execute(query).all()


def _shift(engine: Engine, task_no: int, by: int) -> None:
    """Changes charges without their daily sums."""
    with engine.begin() as connection:
        change = update(CHARGES).where(CHARGES.c.task_no == task_no, CHARGES.c.meter == "output")
        connection.execute(change.values(consumed_quantity=CHARGES.c.consumed_quantity + by))


def _oldest_first(calls: Sequence[CallRecord]) -> list[CallRecord]:
    return sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id))


def _now() -> datetime:
    return datetime.now(UTC)
