"""Ledger, Dapr's histories and books disagree, because one is older or lacks a task. Each direction is reported with a
remedy; following it leaves no difference and loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select, update

from app.dapr.history.parse import parse
from app.domain.errors import Conflict, HistoryTampered, TaskNotFound
from app.domain.models import Category, Outcome, Refund, TaskResult, TaskStatus, Ticket, UsageBasis
from app.domain.standing import Standing
from app.finance.rollup import Group
from app.ledger.audit import ledger_check, refunds
from app.ledger.audit.rebuilding import Rebuilt, rebuild
from app.ledger.audit.refunds import PostedRefund
from app.ledger.recording.projector import Projector
from app.ledger.recording.sources import Sources
from app.ledger.store.standings import Standings
from app.ledger.store.tables import METADATA, MODEL_CALLS, PRICE_BOOKS, PRICES, TASKS, TICKETS
from app.ledger.store.tickets import Tickets
from app.ledger.store.writer import Writer
from app.pricing.charge_types import CallRecord, TokenUsage
from tests.dapr.history.told import Told
from tests.ledger.kit import NAMING, Ledger, write_journal
from tests.ledger.test_projector import Histories
from tests.records import call_record, price_book

TASK = "acme:T-1"
NOW = datetime(2026, 12, 24, tzinfo=UTC)
INPUT: dict[str, Any] = {"tenant": "acme", "ticket_id": "T-1", "customer_id": "C-1", "order_id": None, "rules": {}}
REFUND = Refund(order_id="AC-1", amount=Decimal("49.90"), currency="EUR")
RESULT = TaskResult(
    outcome=Outcome.REFUNDED, category=Category.DAMAGED, refund=REFUND, refund_id="RF-1", decided_by="Jo"
)
USE = {
    "answered_by": "provider",
    "component": "llm",
    "model": "sandbox-small",
    "prompt_version": "p1",
    "request_digest": "0" * 64,
    "input_tokens": 812,
    "cached_tokens": 100,
    "output_tokens": 40,
    "reasoning_tokens": None,
    "usage_basis": "reported",
}
CALL = call_record(
    "classify-1",
    stage="classify",
    usage=TokenUsage(input_tokens=812, output_tokens=40, cached_tokens=100),
    started_at=datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC),
    ended_at=datetime(2026, 11, 22, 8, 0, 1, tzinfo=UTC),
)


def begun() -> Told:
    """A task after its classification, with the usage of that call."""
    told = Told().turn(0).started(0, name="refund_ticket", text=json.dumps(INPUT))
    told.scheduled(0, 1, "classify", key=CALL.execution_id, text=json.dumps({"turn": 1}))
    return told.turn(1).completed(1, 1, json.dumps({"use": USE}))


def waiting() -> Told:
    """Makes the task wait for a person."""
    return begun().waits(1, 2, "decision")


def completed() -> Told:
    """Lets a person approve, and completes the task."""
    told = waiting().turn(9).raised(9, "decision", "{}").scheduled(9, 3, "close_case", key="close")
    return told.turn(10).completed(10, 3, "{}").ended(10, text=RESULT.model_dump_json())


USAGE = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


class Stores:
    """The three stores, with the sources of checks and rebuilds."""

    def __init__(self, ledger: Ledger, writer: Writer) -> None:
        self.ledger = ledger
        self.engine = ledger.engine
        self.writer = writer
        self.dapr = Histories()
        self.books: list[PostedRefund] = []
        self.sources = Sources(
            self.engine,
            self.dapr,
            price_book(),
            NAMING,
            lambda: NOW,
            custom_status=lambda _: None,
            instance_ids=lambda: self.dapr.runs,
        )
        self.standings = Standings(self.engine, writer, lambda: NOW)

    def tell(self, told: Told) -> None:
        """The history of a task in Dapr."""
        self.dapr.tell(TASK, told)

    def record(self) -> None:
        """Records the task as the projector does, and saves the price book as at its start."""
        projector = Projector(self.sources, self.writer)
        projector.record([TASK])
        self.keep_book()

    def keep_book(self) -> None:
        book = self.sources.book
        with self.engine.begin() as connection:
            if not connection.execute(select(func.count()).select_from(PRICE_BOOKS)).scalar_one():
                row = {"digest": book.digest, "content": book.content, "first_used_at": NOW}
                connection.execute(PRICE_BOOKS.insert(), row)

    def work(self, told: Told, *, posted: bool = False) -> None:
        """Writes the task so far into all stores, as without a loss."""
        self.ledger.tickets(TASK)
        self.ledger.journal([CALL])
        self.tell(told)
        self.record()
        if posted:
            self.post()

    def post(self) -> None:
        """Adds the task's refund to the books."""
        values = {"refund_id": "RF-1", "idempotency_key": "k", "tenant": "acme", "ticket_id": "T-1", "at": NOW}
        self.books.append(PostedRefund.model_validate(values | REFUND.model_dump()))

    def lose_ledger(self) -> None:
        """Restores the ledger from a backup from before the task."""
        with self.engine.begin() as connection:
            for table in METADATA.tables.values():
                if table not in (PRICE_BOOKS, PRICES):
                    connection.execute(delete(table))

    def differences(self) -> list[tuple[str, str, str]]:
        """The differences of a check: what, expected value and remedy."""
        found = [*ledger_check.check(self.sources), *self.compared()]
        return [(each.what, each.expected, each.remedy) for each in found]

    def compared(self) -> tuple[ledger_check.LedgerDifference, ...]:
        return refunds.compare(self.engine, self.books, lambda task_id: task_id in self.dapr.runs).differences

    def rebuild(self) -> Rebuilt:
        """Runs `ledger rebuild`, the most frequent remedy."""
        return rebuild(self.sources, lambda _done, _total: None)

    def total(self) -> Group:
        """The sum of all charges."""
        return self.ledger.records.report().total


@pytest.fixture
def stores(ledger: Ledger) -> Iterator[Stores]:
    """Three empty stores."""
    writer = Writer(ledger.engine)
    yield Stores(ledger, writer)
    writer.close()


def model_tokens(stores: Stores) -> set[tuple[str, Decimal | None, str, bool]]:
    """The charged usage of the task's model calls."""
    charges = stores.ledger.charges_of(TASK)
    return {
        (each.meter.value, each.consumed_quantity, each.usage_basis.value, each.wasted) for each in charges if each.turn
    }


def rows_of(engine: Engine, table: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def test_where_all_agree_nothing_is_said_and_a_rebuild_changes_nothing(stores: Stores) -> None:
    stores.work(completed(), posted=True)
    before = stores.total()
    assert stores.differences() == []
    stores.rebuild()
    assert (stores.differences(), stores.total()) == ([], before)


# Dapr lacks the task, or has an older history


def test_a_final_record_needs_no_history(stores: Stores) -> None:
    stores.work(completed(), posted=True)
    before = stores.ledger.content()
    stores.dapr.runs.clear()
    assert stores.differences() == []
    assert stores.rebuild().kept == (TASK,)
    after = stores.ledger.content()
    assert {name: after[name] for name in ("tickets", "tasks", "charges", "steps", "model_calls")} == {
        name: before[name] for name in ("tickets", "tasks", "charges", "steps", "model_calls")
    }


def test_a_task_that_dapr_lost_is_named_with_the_way_to_begin_it_again(stores: Stores) -> None:
    stores.work(waiting())
    stores.dapr.runs.clear()
    ((what, expected, remedy),) = stores.differences()
    assert (what, expected, "refund-agent task rerun acme:T-1" in remedy) == ("run", "none", True)
    before = rows_of(stores.engine, TASKS)
    stores.rebuild()
    assert rows_of(stores.engine, TASKS) == before, "a rebuild takes nothing away"
    stores.standings.prepare_new_run(TASK, "rerun")
    again = Told().turn(50).started(50, name="refund_ticket", text=json.dumps(INPUT))
    again.events[-1].executionStarted.workflowInstance.executionId.value = "another run"
    stores.tell(again)
    stores.record()
    assert stores.differences() == []


def test_a_refund_of_a_task_that_an_older_state_store_has_waiting_stays_in_the_record(stores: Stores) -> None:
    stores.work(completed(), posted=True)
    before = rows_of(stores.engine, TASKS)
    stores.tell(waiting())
    ((what, _, remedy),) = stores.differences()
    assert (what, "whose record stays" in remedy, "task terminate acme:T-1" in remedy) == ("history", True, True)
    assert stores.rebuild().kept == (TASK,)
    assert rows_of(stores.engine, TASKS) == before
    assert stores.standings.get(TASK).standing.result == RESULT
    stores.tell(waiting().turn(99).ended(99, status=5))
    stores.record()
    assert (stores.differences(), rows_of(stores.engine, TASKS)) == ([], before)


def test_a_waiting_task_that_an_older_state_store_has_at_its_beginning_is_named(stores: Stores) -> None:
    stores.work(waiting())
    stores.tell(Told().turn(0).started(0, name="refund_ticket", text=json.dumps(INPUT)))
    ((what, _, remedy),) = stores.differences()
    assert (what, "terminate" in remedy, "rerun" in remedy) == ("history", True, True)


def test_a_history_that_does_not_verify_is_for_people_and_no_rebuild(stores: Stores) -> None:
    stores.work(completed(), posted=True)
    before = rows_of(stores.engine, TASKS)
    stores.dapr.runs[TASK] = HistoryTampered(TASK, "digest mismatch")
    ((what, _, remedy),) = stores.differences()
    assert (what, "find out who wrote to it" in remedy) == ("history", True)
    assert stores.rebuild().kept == (TASK,)
    assert rows_of(stores.engine, TASKS) == before


def test_a_task_that_ended_and_was_purged_before_it_was_recorded_gets_a_record(stores: Stores) -> None:
    stores.ledger.tickets(TASK)
    stores.ledger.journal([CALL])
    stores.keep_book()
    done = Standing(status=TaskStatus.COMPLETED, at=NOW - timedelta(days=1), result=RESULT)
    stores.standings.report(TASK, done).result()
    stores.post()
    ((what, expected, remedy),) = stores.differences()
    assert (what, expected.startswith("completed since"), remedy) == ("record", True, "")
    stores.rebuild()
    assert stores.differences() == []
    record = stores.ledger.records.record(TASK)
    assert (record.status, record.refund, record.refund_id) == (TaskStatus.COMPLETED, REFUND, "RF-1")
    assert sum(charge.usage_basis is UsageBasis.REPORTED for charge in record.charges) > 0, "what its model call cost"
    assert stores.standings.get(TASK).standing.result == RESULT


def test_a_task_that_is_purged_as_soon_as_it_ends_is_recorded_by_the_projector(stores: Stores) -> None:
    """The history is purged immediately, as by a retention policy of zero."""
    stores.ledger.tickets(TASK)
    stores.ledger.journal([CALL])
    done = Standing(status=TaskStatus.COMPLETED, at=NOW - timedelta(days=1), result=RESULT)
    stores.standings.report(TASK, done).result()
    stores.post()
    stores.record()
    found = stores.standings.get(TASK)
    assert (found.final, found.caveat, found.standing.result) == (True, "", RESULT)
    assert stores.differences() == []
    charges = stores.ledger.charges_of(TASK)
    assert {each.usage_basis for each in charges if not each.turn} == {UsageBasis.UNREPORTED}, "not known is not zero"
    assert model_tokens(stores) >= {("output", Decimal(40), "reported", False)}


def test_a_task_whose_last_history_was_purged_unread_keeps_the_record_of_before(stores: Stores) -> None:
    stores.work(waiting())
    before = rows_of(stores.engine, TASKS)
    stores.standings.report(TASK, Standing(status=TaskStatus.COMPLETED, at=NOW, result=RESULT)).result()
    stores.dapr.runs.clear()
    ((what, _, remedy),) = [each for each in stores.differences() if each[0] == "record"]
    assert (what, remedy) == ("record", ledger_check.PURGED)
    stores.rebuild()
    stores.record()
    assert rows_of(stores.engine, TASKS) == before
    assert stores.standings.get(TASK).caveat == "", "it has ended: nothing is to be begun again"


# The ledger lacks the task, or parts of it


def test_a_ledger_that_was_lost_comes_back_from_the_histories(stores: Stores) -> None:
    stores.work(completed(), posted=True)
    before, tokens = stores.total(), model_tokens(stores)
    stores.lose_ledger()
    found = stores.differences()
    assert ("ticket", "none") in [(what, "none") for what, _, remedy in found if not remedy]
    (refund,) = [remedy for what, _, remedy in found if what.startswith("refund")]
    assert refund == refunds.LACKING
    rebuilt = stores.rebuild()
    assert (rebuilt.restored, rebuilt.kept) == ((TASK,), ())
    assert stores.differences() == []
    assert model_tokens(stores) == tokens
    assert stores.total().charges == before.charges
    (row,) = rows_of(stores.engine, TICKETS)
    assert (row["customer_id"], row["started"], row["recorded"], row["status"]) == ("C-1", True, True, "completed")
    assert stores.standings.get(TASK).standing.result == RESULT, "who decided as well"
    (call,) = rows_of(stores.engine, MODEL_CALLS)
    assert (call["input_tokens"], call["output_tokens"], call["usage_basis"], call["provider"]) == (
        812,
        40,
        "reported",
        "",
    )


def test_a_task_that_goes_on_comes_back_without_its_texts_and_asks_for_them(stores: Stores) -> None:
    stores.work(waiting())
    stores.lose_ledger()
    assert stores.rebuild().restored == (TASK,)
    assert stores.differences() == []
    tickets = Tickets(stores.engine, stores.writer, lambda: NOW)
    with pytest.raises(TaskNotFound, match="send the ticket again"):
        tickets.to_read(TASK)
    sent = Ticket(tenant="acme", ticket_id="T-1", customer_id="C-1", text="It arrived broken.")
    with pytest.raises(Conflict):
        tickets.accept(sent.model_copy(update={"customer_id": "C-2"}))
    _, created = tickets.accept(sent)
    assert (created, tickets.to_read(TASK).text) == (False, "It arrived broken.")
    with pytest.raises(Conflict):
        tickets.accept(sent.model_copy(update={"text": "Another story."}))
    assert stores.standings.get(TASK).standing.status is TaskStatus.WAITING


def test_another_workflows_instances_are_none_of_ours(stores: Stores) -> None:
    stores.dapr.runs["mailbox-1"] = parse("mailbox-1", Told().turn(0).started(0, text='{"mails": 7}').ended(5).events)
    assert stores.differences() == []
    assert (stores.rebuild().restored, rows_of(stores.engine, TASKS)) == ((), [])


@pytest.mark.parametrize("state", ["gone", "started", "interrupted"])
def test_a_model_call_that_an_older_journal_lacks_is_proven_by_the_history(stores: Stores, state: str) -> None:
    stores.work(waiting())
    tokens = model_tokens(stores)
    stores.tell(completed())
    stores.post()
    with stores.engine.begin() as connection:
        if state == "gone":
            connection.execute(delete(MODEL_CALLS))
        else:
            nothing = dict.fromkeys((*USAGE, "ended_at", "model"))
            open_row = {**nothing, "usage_basis": "unreported", "state": state, "reserve_input": 9_999}
            connection.execute(update(MODEL_CALLS).values(open_row))
    stores.record()
    assert model_tokens(stores) == tokens, "charged before the journal has it again"
    (found,) = [each for each in stores.differences() if each[0].startswith("model call")]
    assert found == ("model call of classify, turn 1", "sandbox-small, 812 tokens in, 40 out", "")
    stores.rebuild()
    assert stores.differences() == []
    (call,) = rows_of(stores.engine, MODEL_CALLS)
    assert (call["state"], call["input_tokens"], call["cached_tokens"]) == ("settled", 812, 100)
    assert model_tokens(stores) == tokens


def test_no_call_is_made_up_where_the_journal_has_the_answer(stores: Stores) -> None:
    stores.work(completed())
    again: CallRecord = replace(CALL, call_id="other", number=2, state=CALL.state.INTERRUPTED)
    with stores.engine.begin() as connection:
        write_journal(connection, [again])
    stores.record()
    assert [each for each in stores.differences() if each[0].startswith("model call")] == []


# The books


def test_the_books_have_a_refund_of_a_task_that_nobody_knows(stores: Stores) -> None:
    stores.post()
    assert stores.differences() == [("refund RF-1", "49.90 EUR for order AC-1 of ticket T-1", refunds.UNKNOWN)]


def test_the_books_lack_a_refund_of_the_record(stores: Stores) -> None:
    stores.work(completed())
    assert stores.differences() == [("refund RF-1", "none", refunds.LOST)]


def test_a_refund_of_a_task_that_dapr_lost_before_its_end_is_on_the_way(stores: Stores) -> None:
    """The task is reported; after its restart, its refund is found by its key."""
    stores.work(waiting(), posted=True)
    stores.dapr.runs.clear()
    assert [what for what, _, _ in stores.differences()] == ["run"]
