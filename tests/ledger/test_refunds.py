"""The ledger's refunds compared with the books', in both directions: each difference is reported with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, insert
from sqlalchemy.pool import StaticPool

from app.domain.errors import SystemUnavailable
from app.ledger.audit import refunds
from app.ledger.audit.ledger_check import LedgerDifference
from app.ledger.audit.refunds import PostedRefund, PromisedRefund, compare
from app.ledger.store.tables import METADATA, TASKS
from tests.ledger.kit import Ledger

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
FACTS = "20.00 EUR for order LD-1 of ticket T-1"


def posted(refund_id: str = "RF-1", ticket_id: str = "T-1", **changes: Any) -> PostedRefund:
    """A refund of the books."""
    values = {
        "refund_id": refund_id,
        "idempotency_key": f"key of {refund_id}",
        "tenant": "acme",
        "ticket_id": ticket_id,
        "order_id": "LD-1",
        "amount": Decimal("20.00"),
        "currency": "EUR",
        "at": AT,
    }
    return PostedRefund.model_validate(values | changes)


def task_row(task_id: str = "acme:T-1", refund_id: str | None = "RF-1", **changes: Any) -> dict[str, Any]:
    """The row of a task that ended with that refund."""
    values: dict[str, Any] = {
        "task_id": task_id,
        "tenant": "acme",
        "agent": "agent",
        "workflow": "refund_ticket",
        "version": "",
        "execution_id": "e",
        "rerun_of": None,
        "status": "completed",
        "outcome": "refunded" if refund_id else "rejected",
        "category": "damaged",
        "order_id": "LD-1" if refund_id else None,
        "refund_amount": "20.00" if refund_id else None,
        "refund_currency": "EUR" if refund_id else None,
        "refund_id": refund_id,
        "started_at": AT,
        "ended_at": AT,
        "projected_at": AT,
        "parts": "{}",
        "turns": 1,
        "events": 1,
        "size": 1,
        "trace_parent": "",
    }
    return values | changes


def record(engine: Engine, *rows: dict[str, Any]) -> None:
    """Puts tasks into the ledger."""
    with engine.begin() as connection:
        connection.execute(insert(TASKS), list(rows))


def nobody(task_id: str) -> bool:
    """Says that Dapr has no task that the ledger lacks."""
    return False


def found(engine: Engine, *of_books: PostedRefund) -> tuple[LedgerDifference, ...]:
    """All differences; asserts that each has the source `books` and a remedy."""
    differences = compare(engine, of_books, nobody).differences
    assert all(each.source == "books" and each.remedy for each in differences)
    return differences


def named(difference: LedgerDifference) -> tuple[str, str, str, str]:
    return (difference.task_id, difference.what, difference.expected, difference.found)


def test_two_books_that_agree(engine: Engine) -> None:
    record(engine, task_row(), task_row("acme:T-2", None), task_row("acme:T-3", "RF-9"))
    checked = compare(engine, [posted(), posted("RF-9", "T-3")], nobody)
    assert checked.differences == ()
    assert (checked.in_books, checked.in_ledger, checked.in_flight, checked.problem) == (2, 2, 0, "")


def test_a_refund_of_ours_that_is_not_in_the_books(engine: Engine) -> None:
    record(engine, task_row())
    (difference,) = found(engine)
    assert named(difference) == ("acme:T-1", "refund RF-1", "none", FACTS)
    assert str(difference) == (
        f"task acme:T-1: refund RF-1: the books say none, the ledger {FACTS}; the customer was told of it: "
        "find out who removed it from the books, and post it again"
    )


def test_a_refund_that_nobody_asked_for(engine: Engine) -> None:
    (difference,) = found(engine, posted())
    assert named(difference) == ("acme:T-1", "refund RF-1", FACTS, "no such ticket")
    assert difference.remedy == refunds.UNKNOWN


def test_an_honest_refund_whose_task_the_ledger_has_lost_is_never_to_be_taken_back(engine: Engine) -> None:
    (difference,) = compare(engine, [posted()], lambda task_id: task_id == "acme:T-1").differences
    assert difference.remedy == refunds.LACKING
    assert "ledger rebuild" in difference.remedy
    (difference,) = compare(engine, [posted()], lambda task_id: task_id == "acme:T-2").differences
    assert difference.remedy == refunds.UNKNOWN
    assert "backup" in difference.remedy


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({"refund_id": None}, "completed as rejected with no refund"),
        ({"refund_id": None, "status": "terminated", "outcome": ""}, "terminated with no refund"),
    ],
)
def test_a_refund_whose_task_ended_otherwise(engine: Engine, changes: dict[str, Any], ended: str) -> None:
    record(engine, task_row(**changes))
    (difference,) = found(engine, posted())
    assert named(difference) == ("acme:T-1", "refund RF-1", FACTS, ended)
    assert difference.remedy == refunds.OTHERWISE


def test_another_id_is_named_from_both_sides(engine: Engine) -> None:
    record(engine, task_row(refund_id="RF-2"))
    assert [named(each) for each in found(engine, posted())] == [
        ("acme:T-1", "refund RF-1", FACTS, "completed as refunded with RF-2"),
        ("acme:T-1", "refund RF-2", "none", FACTS),
    ]


@pytest.mark.parametrize(
    ("changes", "theirs"),
    [
        ({"amount": "20.01"}, "20.01 EUR for order LD-1 of ticket T-1"),
        ({"currency": "USD"}, "20.00 USD for order LD-1 of ticket T-1"),
        ({"order_id": "LD-2"}, "20.00 EUR for order LD-2 of ticket T-1"),
        ({"ticket_id": "T-2"}, "20.00 EUR for order LD-1 of ticket T-2"),
    ],
)
def test_a_refund_that_is_another(sqlite_engine: Engine, changes: dict[str, str], theirs: str) -> None:
    record(sqlite_engine, task_row())
    (difference,) = found(sqlite_engine, posted(**changes))
    assert named(difference) == ("acme:T-1", "refund RF-1", theirs, FACTS)
    assert difference.remedy == refunds.CHANGED


def test_the_same_id_of_another_tenant_is_another_refund(sqlite_engine: Engine) -> None:
    record(sqlite_engine, task_row())
    assert len(found(sqlite_engine, posted(tenant="lumen"))) == 2


def test_a_second_refund_of_a_ticket(sqlite_engine: Engine) -> None:
    record(sqlite_engine, task_row())
    (difference,) = found(sqlite_engine, posted(), posted("RF-2", amount="1.00"))
    assert named(difference) == (
        "acme:T-1",
        "refund RF-2",
        "1.00 EUR for order LD-1 of ticket T-1",
        "RF-1 already",
    )
    assert difference.remedy == refunds.TWICE


def test_a_record_without_a_refund_id_is_named(sqlite_engine: Engine) -> None:
    record(sqlite_engine, task_row(refund_id=None, outcome="refunded"))
    (difference,) = found(sqlite_engine)
    assert difference.what == "refund without an id"


def test_a_refund_of_a_task_that_goes_on_is_no_difference(ledger: Ledger) -> None:
    ledger.tickets("acme:T-1", "acme:T-2")
    ledger.tickets("acme:T-3", started=False)
    record(ledger.engine, task_row("acme:T-1", None, status="parked", outcome="", ended_at=None))
    of_books = [posted(f"RF-{number}", f"T-{number}") for number in (1, 2, 3)]
    checked = compare(ledger.engine, of_books, nobody)
    assert (checked.differences, checked.in_books, checked.in_ledger, checked.in_flight) == ((), 3, 0, 3)


def test_a_rerun_speaks_for_the_ticket_of_its_first_task(ledger: Ledger) -> None:
    ledger.tickets("acme:T-1", "acme:T-2", "acme:T-3")
    record(
        ledger.engine,
        task_row(refund_id="RF-1"),
        task_row("again-1", "RF-1", rerun_of="acme:T-1"),
        task_row("acme:T-2", None),
        task_row("again-2", "RF-2", rerun_of="acme:T-2"),
        task_row("acme:T-3", None, status="terminated", outcome=""),
        task_row("again-3", None, rerun_of="acme:T-3", status="failed", outcome=""),
        task_row("again-4", None, rerun_of="again-3", status="running", outcome="", ended_at=None),
    )
    checked = compare(ledger.engine, [posted(f"RF-{number}", f"T-{number}") for number in (1, 2, 3)], nobody)
    assert (checked.differences, checked.in_ledger, checked.in_flight) == ((), 2, 1)


def test_a_task_that_ends_while_the_books_are_read_is_no_difference(sqlite_engine: Engine) -> None:
    """A refund that is posted and recorded after the ledger was read is reported neither as lost nor as unknown."""
    Ledger(sqlite_engine).tickets("acme:T-1")

    def pages() -> Iterator[PostedRefund]:
        record(sqlite_engine, task_row())
        yield posted()

    checked = compare(sqlite_engine, pages(), nobody)
    assert (checked.differences, checked.in_books, checked.in_ledger, checked.in_flight) == ((), 1, 1, 0)


def test_books_that_cannot_be_read_leave_what_was_found_until_then(sqlite_engine: Engine) -> None:
    record(sqlite_engine, task_row(), task_row("acme:T-2", "RF-2"))

    def broken() -> Iterator[PostedRefund]:
        yield posted(amount="1.00")
        raise SystemUnavailable("refunds/list: status 503")

    checked = compare(sqlite_engine, broken(), nobody)
    assert [each.what for each in checked.differences] == ["refund RF-1"], "what was not read is not lost"
    assert (checked.in_books, checked.problem) == (1, "refunds/list: status 503")


# Cases of a ticket: the ledger's row, the books' rows, and the expected remedies.
STORIES: dict[str, tuple[bool | None, Sequence[str], list[str]]] = {
    "agreed": (True, ["20.00"], []),
    "changed": (True, ["21.00"], [refunds.CHANGED]),
    "lost": (True, [], [refunds.LOST]),
    "twice": (True, ["20.00", "1.00"], [refunds.TWICE]),
    "otherwise": (False, ["20.00"], [refunds.OTHERWISE]),
    "nobody's": (None, ["20.00"], [refunds.UNKNOWN]),
    "rejected": (False, [], []),
}


@settings(max_examples=50)
@given(st.lists(st.sampled_from(sorted(STORIES)), max_size=30), st.randoms(use_true_random=False))
def test_every_story_is_told_once(stories: list[str], chance: Any) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)  # one connection, and dispose closes it
    with ExitStack() as ends:
        ends.callback(engine.dispose)  # also if hypothesis abandons the example
        METADATA.create_all(engine)
        expected: list[tuple[str, str]] = []
        of_books: list[PostedRefund] = []
        for number, story in enumerate(stories):
            refunded, amounts, remedies = STORIES[story]
            ids = [f"RF-{number}-{place}" for place in range(2)]
            if refunded is not None:
                record(engine, task_row(f"acme:T-{number}", ids[0] if refunded else None))
            of_books += [
                posted(refund_id, f"T-{number}", amount=amount) for refund_id, amount in zip(ids, amounts, strict=False)
            ]
            expected += [(f"acme:T-{number}", remedy) for remedy in remedies]
        if "twice" not in stories:  # which of two is the second depends on their order
            chance.shuffle(of_books)
        assert sorted((each.task_id, each.remedy) for each in found(engine, *of_books)) == sorted(expected)


def test_a_promise_of_a_task_that_has_ended_is_named_and_one_of_a_task_that_goes_on_is_not(engine: Engine) -> None:
    record(
        engine,
        task_row("acme:T-1", None, status="terminated", outcome=""),
        task_row("acme:T-2", None, status="running", outcome="", ended_at=None),
    )
    promised = [
        PromisedRefund(tenant="acme", ticket_id=each, order_id="LD-1", amount=Decimal("20"), currency="EUR", at=AT)
        for each in ("T-1", "T-2", "T-3")
    ]
    (difference,) = compare(engine, [], nobody, promised).differences
    assert (difference.task_id, difference.what) == ("acme:T-1", "promised refund")
    assert difference.expected == "20.00 EUR for order LD-1 of ticket T-1"
    assert (difference.found, difference.remedy) == ("terminated with no refund", refunds.PROMISED)
