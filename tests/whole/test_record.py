"""Against the real runtime: every task leaves its record, in time, whatever is killed, and it can be made again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest

from app import bootstrap
from app.config.settings import Settings
from app.domain.models import Outcome, TaskStatus
from app.finance.rollup import Dimension, rollup
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.pricing.charge_types import Meter
from app.workflow.activities import STAGE_OF
from tests.live import Live, recorded, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

FINISHED_SECONDS, OTHERWISE_ENDED_SECONDS = 2.0, 30.0


def settings(live: Live) -> Settings:
    """As the agent has them."""
    return Settings(state_dir=live.stack.state, dapr_grpc_port=live.stack.ports.dapr_grpc)


@contextmanager
def open_records(live: Live) -> Iterator[LedgerQueries]:
    """The ledger, as a reader."""
    engine = database.connect(settings(live).database_url)
    try:
        yield LedgerQueries(engine)
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def records(shared_stack: Live) -> Iterator[LedgerQueries]:
    """The shared product's ledger."""
    with open_records(shared_stack) as opened:
        yield opened


@contextmanager
def ledger(live: Live) -> Iterator[sqlite3.Connection]:
    """The ledger's file, to be tampered with."""
    with closing(sqlite3.connect(live.stack.state / "ledger.sqlite", timeout=30)) as connection, connection:
        yield connection


def test_a_finished_task_is_recorded_within_two_seconds(live: Live, records: LedgerQueries) -> None:
    lags = []
    for number in range(10):
        task_id = live.submit(tickets.refund(f"lag-{number}", 11_000 + number))
        record = recorded(records, task_id, TaskStatus.COMPLETED)
        assert record.ended_at is not None
        lags.append((datetime.now(UTC) - record.ended_at).total_seconds())
    print(f"projection lag: median {sorted(lags)[5]:.2f} s, worst {max(lags):.2f} s")
    assert sorted(lags)[7] < FINISHED_SECONDS, "but for one or two when the machine stood still"
    assert max(lags) < OTHERWISE_ENDED_SECONDS


def test_the_record_tells_what_was_done_and_what_it_cost(live: Live, records: LedgerQueries) -> None:
    before = {row["id"] for row in live.bill()}
    task_id = live.submit(tickets.refund("told", 11_100))
    live.wait(task_id, "completed")
    record = recorded(records, task_id, TaskStatus.COMPLETED)

    assert (record.tenant, record.agent, record.workflow) == ("bench", "agent", "refund_ticket")
    assert (record.outcome, record.category) == (Outcome.REFUNDED, "damaged")
    assert Counter(step.name for step in record.steps) == tickets.REFUND_STEPS
    assert {step.stage for step in record.steps} == set(STAGE_OF.values())
    assert {step.tool for step in record.steps if step.stage == "draft_refund"} >= {"", "lookup_order"}
    bill = [row for row in live.bill() if row["id"] not in before]
    billed = [(row["input_tokens"], row["cached_tokens"], row["output_tokens"]) for row in bill]
    used = [(call.usage.input_tokens, call.usage.cached_tokens, call.usage.output_tokens) for call in record.calls]
    assert used == billed
    assert {call.provider for call in record.calls} == {"conversation.openai"}
    tokens = {line: sum(each.consumed_quantity or 0 for each in record.charges if each.meter is line) for line in Meter}
    assert tokens[Meter.INPUT] + tokens[Meter.CACHED_INPUT] == sum(row["input_tokens"] for row in bill)
    assert tokens[Meter.OUTPUT] == sum(row["output_tokens"] for row in bill)
    assert sum(step.active.total_seconds() for step in record.steps) > 0
    assert tokens[Meter.STEP_WRITES] == record.events


def test_a_task_that_waits_is_charged_and_moves_to_its_outcome_when_it_ends(live: Live, records: LedgerQueries) -> None:
    task_id = live.submit(tickets.greedy("moves", 11_200))
    live.wait(task_id, "waiting")
    waiting = recorded(records, task_id, TaskStatus.WAITING)
    assert waiting.charges
    assert waiting.ended_at is None
    live.web.post(f"/tasks/{task_id}/reject").raise_for_status()
    ended = recorded(records, task_id, TaskStatus.COMPLETED)
    assert {charge.id for charge in waiting.charges} <= {charge.id for charge in ended.charges}
    assert {charge.outcome for charge in ended.charges} == {"rejected"}
    assert any(pause.label == "decision" for pause in ended.pauses)


def test_a_terminated_task_is_recorded_within_thirty_seconds(live: Live, records: LedgerQueries) -> None:
    task_id = live.submit(tickets.greedy("terminated", 11_300))
    live.wait(task_id, "waiting")
    live.web.post(f"/tasks/{task_id}/terminate", json={"reason": "test"}).raise_for_status()
    record = recorded(records, task_id, TaskStatus.TERMINATED, seconds=OTHERWISE_ENDED_SECONDS)
    assert record.ended_at is not None
    assert record.charges


def test_a_task_that_ended_while_nobody_looked_is_recorded_at_the_next_start(own_stack: Live) -> None:
    """The worker is killed between a task's end and its record, again and again."""
    live = own_stack
    task_ids = [live.submit(tickets.refund(f"unseen-{number}", 12_000 + number)) for number in range(12)]
    for task_id in task_ids[::3]:
        live.wait(task_id, "completed")
        live.stack.kill("worker")
        live.stack.start("worker")
    live.wait_all(task_ids, "completed")
    with open_records(live) as records:
        for task_id in task_ids:
            recorded(records, task_id, TaskStatus.COMPLETED)
    until(lambda: bootstrap.check_ledger(settings(live)) == (), "everything is recorded as it was")


def test_a_rebuilt_ledger_has_the_same_figures(live: Live, records: LedgerQueries) -> None:
    task_ids = [live.submit(tickets.refund(f"rebuilt-{number}", 11_400 + number)) for number in range(5)]
    for task_id in task_ids:
        recorded(records, task_id, TaskStatus.COMPLETED)
    until(lambda: bootstrap.check_ledger(settings(live)) == (), "everything is recorded")
    before = records.report([Dimension.TASK, Dimension.STEP])
    done: list[tuple[int, int]] = []
    rebuilt = bootstrap.rebuild_ledger(settings(live), lambda *progress: done.append(progress))
    assert rebuilt.before == rebuilt.after
    assert (rebuilt.kept, rebuilt.repriced) == ((), ())
    assert done[-1] == (rebuilt.tasks, rebuilt.tasks)
    assert records.report([Dimension.TASK, Dimension.STEP]) == before
    assert bootstrap.check_ledger(settings(live)) == ()


TAMPERED = {
    "a charge is gone": "DELETE FROM charges WHERE task_no = {no} AND meter = 'output'",
    "a charge is more": (
        "UPDATE charges SET consumed_quantity = consumed_quantity + 1 WHERE task_no = {no} AND meter = 'output'"
    ),
    "a charge is twice": (
        "INSERT INTO charges SELECT task_no, step, turn, number + 7, meter, wasted, correction, price_no,"
        " consumed_quantity, usage_basis, at FROM charges WHERE task_no = {no} AND meter = 'output' AND turn = 1"
    ),
    "a task is gone": "DELETE FROM tasks WHERE task_no = {no}",
    "an outcome is another": "UPDATE tasks SET outcome = 'declined' WHERE task_no = {no}",
    "a step is gone": "DELETE FROM steps WHERE task_no = {no} AND step = 1",
    "a call in the journal is another": "UPDATE model_calls SET output_tokens = 9 WHERE task_id = '{task_id}'",
}


def test_the_check_finds_every_kind_of_damage_and_a_rebuild_mends_them(live: Live, records: LedgerQueries) -> None:
    """Each kind in a task of its own, so that each is found for itself; a look at everything is what takes time."""
    hurt = {kind: live.submit(tickets.refund(f"damaged-{n}", 11_500 + n)) for n, kind in enumerate(TAMPERED)}
    for task_id in hurt.values():
        recorded(records, task_id, TaskStatus.COMPLETED)
    until(lambda: bootstrap.check_ledger(settings(live)) == (), "everything is recorded")
    with ledger(live) as connection:
        for kind, task_id in hurt.items():
            (task_no,) = connection.execute("SELECT task_no FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
            assert connection.execute(TAMPERED[kind].format(no=task_no, task_id=task_id)).rowcount > 0, kind
    found = bootstrap.check_ledger(settings(live))
    assert {difference.task_id for difference in found} >= set(hurt.values())
    bootstrap.rebuild_ledger(settings(live), lambda *_: None)
    with ledger(live) as connection:
        assert connection.execute(
            "UPDATE daily_costs SET consumed_quantity = consumed_quantity + 1 WHERE stage = 'close_case'"
        ).rowcount
    assert {difference.what.split(" 2", 1)[0] for difference in bootstrap.check_ledger(settings(live))} == {"daily sum"}
    bootstrap.rebuild_ledger(settings(live), lambda *_: None)
    assert bootstrap.check_ledger(settings(live)) == ()


def test_stages_sum_to_tasks_and_tenants_and_the_whole(live: Live, records: LedgerQueries) -> None:
    until(lambda: bootstrap.check_ledger(settings(live)) == (), "everything is recorded")
    whole = records.report().total
    charges = list(records.charges())
    assert rollup(charges).total == whole
    for dimension in Dimension:
        parts = records.report([dimension])
        assert parts.total == whole, dimension
        assert parts == rollup(charges, [dimension]), dimension
