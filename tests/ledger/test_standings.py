"""Standings: the later turn wins, a final record keeps its standing, and pages of lists miss no task."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text, update

from app.domain.errors import TaskNotFound
from app.domain.models import Category, Outcome, Refund, TaskResult, TaskStatus
from app.domain.standing import Standing
from app.ledger.store.standings import ListedTask, Standings
from app.ledger.store.tables import TICKETS
from app.ledger.store.writer import Writer
from tests.ledger.kit import Ledger

TASK = "acme:T-1"
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
REFUND = Refund(order_id="AC-1", amount=Decimal("49.90"), currency="EUR")
WAITING = Standing(
    status=TaskStatus.WAITING, at=AT, category=Category.DAMAGED, waiting_for="above_limit", proposed_refund=REFUND
)
DONE = Standing(
    status=TaskStatus.COMPLETED,
    at=AT + SECOND,
    category=Category.DAMAGED,
    result=TaskResult(
        outcome=Outcome.REFUNDED, category=Category.DAMAGED, refund=REFUND, refund_id="R-1", decided_by="Jo"
    ),
)


@pytest.fixture
def standings(ledger: Ledger) -> Iterator[Standings]:
    """Standings of one ticket whose task Dapr has."""
    ledger.tickets(TASK)
    writer = Writer(ledger.engine)
    yield Standings(ledger.engine, writer, lambda: AT)
    writer.close()


def record(engine: Engine, task_id: str = TASK) -> None:
    """Marks the task's record as final, as the projector does."""
    with engine.begin() as connection:
        connection.execute(update(TICKETS).where(TICKETS.c.task_id == task_id).values(recorded=True))


def ids(found: list[ListedTask]) -> list[str]:
    return [each.ticket_id for each in found]


def test_a_task_that_nobody_told_of_runs(standings: Standings) -> None:
    assert standings.get(TASK).standing == Standing(status=TaskStatus.RUNNING)


def test_what_was_told_is_found_again(standings: Standings) -> None:
    for told in (WAITING, DONE):
        standings.report(TASK, told).result()
        assert standings.get(TASK).standing == told


def test_the_later_turn_counts_whoever_comes_last(standings: Standings) -> None:
    standings.report(TASK, DONE).result()
    assert standings.report(TASK, WAITING).result() == 0
    assert standings.get(TASK).standing == DONE


def test_a_task_whose_record_is_final_has_ended_whatever_an_older_state_store_says(
    standings: Standings, engine: Engine
) -> None:
    standings.report(TASK, DONE).result()
    record(engine)
    standings.report(TASK, WAITING.model_copy(update={"at": AT + 60 * SECOND})).result()
    standings.set_caveat(TASK, "not known")
    found = standings.get(TASK)
    assert (found.standing, found.caveat, found.final) == (DONE, "", True)


def test_a_doubt_says_since_when_and_goes_when_the_task_is_told_of(ledger: Ledger, standings: Standings) -> None:
    standings.report(TASK, WAITING).result()
    standings.set_caveat(TASK, "not known")
    later = Standings(ledger.engine, standings._writer, lambda: AT + timedelta(days=1))
    later.set_caveat(TASK, "not known")
    assert standings.get(TASK).caveat == "not known (since 2026-11-22 12:00 UTC at the latest)"
    later.set_caveat(TASK, "not to be read")
    assert standings.get(TASK).caveat == "not to be read (since 2026-11-23 12:00 UTC at the latest)"
    assert standings.get(TASK).standing == WAITING
    standings.report(TASK, DONE).result()
    assert standings.get(TASK).caveat == ""


def test_a_row_that_cannot_be_read_hides_neither_itself_nor_the_others(
    ledger: Ledger, standings: Standings, engine: Engine
) -> None:
    ledger.tickets("acme:T-2")
    standings.report(TASK, WAITING).result()
    standings.report("acme:T-2", WAITING).result()
    with engine.begin() as connection:
        connection.execute(text("UPDATE tickets SET standing = '{\"result\": 7' WHERE task_id = 'acme:T-1'"))
    found, _ = standings.page(None, TaskStatus.WAITING, 0, 10)
    assert [each.standing for each in found] == [Standing(status=TaskStatus.WAITING, at=AT), WAITING]


def test_an_unknown_task_is_named(standings: Standings) -> None:
    with pytest.raises(TaskNotFound, match="acme:T-9"):
        standings.get("acme:T-9")


def test_pages_lose_nobody_and_say_more_only_when_there_is_more(ledger: Ledger, standings: Standings) -> None:
    """Compares pages for every tenant, status and page size with a plain list; the cursor is the sequence number."""
    dice = random.Random(3)
    expected = [("T-1", "acme", TaskStatus.RUNNING)]
    for number in range(2, 120):
        tenant, stands = dice.choice(["acme", "lumen"]), dice.choice([TaskStatus.WAITING, *[TaskStatus.COMPLETED] * 9])
        ledger.tickets(f"{tenant}:T-{number}")
        standings.report(f"{tenant}:T-{number}", Standing(status=stands, at=AT)).result()
        expected.append((f"T-{number}", tenant, stands))
    for tenants in (None, frozenset({"acme"}), frozenset({"acme", "lumen"}), frozenset[str]()):
        for status in (None, TaskStatus.WAITING, TaskStatus.PAUSED):
            wanted = [
                ticket
                for ticket, tenant, stands in expected
                if (tenants is None or tenant in tenants) and (status is None or stands is status)
            ]
            for limit in (1, 7, len(wanted) or 1):
                assert pages_forward(standings, tenants, status, limit) == wanted
                assert pages_backward(standings, tenants, status, limit) == wanted[::-1]


def pages_forward(
    standings: Standings, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int
) -> list[str]:
    found, more, after = list[str](), True, 0
    while more:
        some, more = standings.page(tenants, status, after, limit)
        assert some or not found
        after = some[-1].sequence if some else after
        found += ids(some)
    return found


def pages_backward(
    standings: Standings, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int
) -> list[str]:
    found, more, before = list[str](), True, None
    while more:
        some, more = standings.newest(tenants, status, before, limit)
        assert some or not found
        before = some[-1].sequence if some else before
        found += ids(some)
    return found


@pytest.mark.parametrize("tenants", ["", "AND tenant IN ('acme') "])
def test_few_waiting_tasks_among_many_are_found_by_an_index(sqlite_engine: Engine, tenants: str) -> None:
    query = f"SELECT task_id FROM tickets WHERE sequence > 0 {tenants}AND status = 'waiting' ORDER BY sequence"  # noqa: S608
    with sqlite_engine.connect() as connection:
        plan = " ".join(str(row) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert "USING INDEX" in plan or "USING COVERING INDEX" in plan
    assert "status=?" in plan
    assert "TEMP B-TREE" not in plan


def test_what_waits_is_narrowed_by_tenant_reason_and_age_and_counted(standings: Standings, ledger: Ledger) -> None:
    kinds = {"acme:T-2": "above_limit", "acme:T-3": "above%limit", "acme:T-4": "above_limit", "globex:T-5": "no_draft"}
    ledger.tickets(*kinds)
    for hours, (task_id, code) in enumerate(kinds.items()):
        standings.report(task_id, WAITING.model_copy(update={"waiting_for": code, "at": AT + timedelta(hours=hours)}))
    standings.report("acme:T-4", DONE.model_copy(update={"at": AT + timedelta(hours=9)})).result()
    acme = frozenset({"acme"})
    assert standings.reasons(None) == {"acme": {"above_limit": 1, "above%limit": 1}, "globex": {"no_draft": 1}}
    assert list(standings.reasons(acme)) == ["acme"]
    late = AT + timedelta(hours=1)
    for tenants, reason, before, found in (
        (None, None, None, ["T-2", "T-3", "T-5"]),
        (acme, None, None, ["T-2", "T-3"]),
        (None, "above_limit", None, ["T-2"]),
        (None, "above%limit", None, ["T-3"]),
        (None, "above", None, []),
        (None, None, late, ["T-2"]),
        (acme, "no_draft", None, []),
    ):
        page, more = standings.waiting(tenants, reason, before, 0, 10)
        assert (ids(page), more) == (found, False)
        assert standings.count(tenants, TaskStatus.WAITING, reason, before) == len(found)
    first, more = standings.waiting(None, None, None, 0, 2)
    rest, none = standings.waiting(None, None, None, first[-1].sequence, 2)
    assert (ids(first), more, ids(rest), none) == (["T-2", "T-3"], True, ["T-5"], False)
    assert standings.count(None, None) == 5
    assert standings.count(acme, TaskStatus.COMPLETED) == 1
