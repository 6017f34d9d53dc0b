"""A closed case and its event leave together, the event says what it must, and is recorded once."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sandbox.systems import entries, events, refunds
from sandbox.systems.books import Books
from sandbox.systems.requests import ListRefunds, RefundIssued
from tests.sandbox.systems.makers import close, post

LATER = timedelta(minutes=1)


def event(books: Books) -> events.Event:
    """The one event that waits."""
    found = events.first_waiting(books, "bench")
    assert found is not None
    return found


def test_a_case_that_ends_with_a_refund_writes_the_event(books: Books, now: datetime) -> None:
    assert close(books, 7, post(books, 7, now), now + LATER)["ok"] is True
    assert event(books).message() == {
        "specversion": "1.0",
        "id": "refund.issued-RF-000001",
        "source": "/cases",
        "type": "refund.issued",
        "time": "2026-03-10T12:01:00+00:00",
        "datacontenttype": "application/json",
        "tenant": "bench",
        "data": {
            "refund_id": "RF-000001",
            "ticket_id": "T-7",
            "order_id": "LD-00007",
            "amount": "20.00",
            "currency": "EUR",
        },
    }
    assert events.waiting_tenants(books) == ["bench"]


def test_a_case_without_a_refund_writes_none(books: Books, now: datetime) -> None:
    assert close(books, 7, None, now)["ok"] is True
    assert entries.book_rows(books, "outbox") == []


def test_the_same_case_again_writes_no_second_event(books: Books, now: datetime) -> None:
    refund_id = post(books, 7, now)
    answers = [close(books, 7, refund_id, now + LATER * number) for number in range(3)]
    assert [answer["created"] for answer in answers] == [True, False, False]
    assert close(books, 7, refund_id, now, idempotency_key="another")["created"] is True
    assert [row["event_id"] for row in entries.book_rows(books, "outbox")] == ["refund.issued-RF-000001"]


@pytest.mark.parametrize("refund_id", ["RF-000009", "RF-1", "RF-000002", "CS-000001", "x"])
def test_a_case_cannot_end_with_a_refund_that_is_not_its_tickets(books: Books, now: datetime, refund_id: str) -> None:
    post(books, 7, now)
    assert post(books, 8, now) == "RF-000002"
    answer = close(books, 7, refund_id, now)
    assert (answer["ok"], answer["code"]) == (False, "refund_not_found")
    assert entries.book_rows(books, "cases") == entries.book_rows(books, "outbox") == []


def test_a_case_cannot_end_with_another_tenants_refund(books: Books, now: datetime) -> None:
    refund_id = post(books, 7, now)
    assert close(books, 7, refund_id, now, tenant="shop")["code"] == "refund_not_found"


class HalfDone(Books):
    """Books whose disk fills up at a statement."""

    fails_at = ""

    def change(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Fails at the statement that begins so."""
        if self.fails_at and sql.startswith(self.fails_at):
            raise sqlite3.OperationalError("database or disk is full")
        return super().change(sql, *values)


@pytest.mark.parametrize("statement", ["INSERT INTO cases", "INSERT INTO outbox"])
def test_neither_leaves_without_the_other(books_path: Path, now: datetime, statement: str) -> None:
    books = HalfDone(books_path)
    refund_id = post(books, 7, now)
    books.fails_at = statement
    with pytest.raises(sqlite3.OperationalError):
        close(books, 7, refund_id, now)
    assert entries.book_rows(books, "cases") == entries.book_rows(books, "outbox") == []
    books.fails_at = ""
    assert close(books, 7, refund_id, now)["created"] is True
    assert len(entries.book_rows(books, "cases")) == len(entries.book_rows(books, "outbox")) == 1
    books.close()


def test_an_event_is_recorded_once_however_often_it_comes(books: Books, now: datetime) -> None:
    close(books, 7, post(books, 7, now), now)
    message = RefundIssued.model_validate(event(books).message())
    created = [events.record_refund(books, message, now + LATER * number)["created"] for number in range(3)]
    assert created == [True, False, False]
    assert entries.book_rows(books, "bookkeeping") == [
        {
            "entry_id": "BK-000001",
            "event_id": "refund.issued-RF-000001",
            "tenant": "bench",
            "refund_id": "RF-000001",
            "ticket_id": "T-7",
            "order_id": "LD-00007",
            "amount": "20.00",
            "currency": "EUR",
            "at": "2026-03-10T12:00:00+00:00",
            "recorded_at": "2026-03-10T12:00:00+00:00",
        }
    ]
    assert [row["deliveries"] for row in entries.book_rows(books, "inbox")] == [3]


def test_an_event_is_not_known_before_it_is_booked(books_path: Path, now: datetime) -> None:
    books = HalfDone(books_path)
    close(books, 7, post(books, 7, now), now)
    message = RefundIssued.model_validate(event(books).message())
    books.fails_at = "INSERT INTO bookkeeping"
    with pytest.raises(sqlite3.OperationalError):
        events.record_refund(books, message, now)
    books.fails_at = ""
    assert events.record_refund(books, message, now)["created"] is True
    books.close()


def test_the_same_id_of_another_source_is_another_event(books: Books, now: datetime) -> None:
    close(books, 7, post(books, 7, now), now)
    message = RefundIssued.model_validate(event(books).message())
    events.record_refund(books, message, now)
    assert events.record_refund(books, message.model_copy(update={"source": "/shop"}), now)["created"] is True


def test_events_hold_nothing_of_the_customer(books: Books, now: datetime) -> None:
    close(books, 7, post(books, 7, now), now)
    assert "load-00007" not in json.dumps(entries.book_rows(books, "outbox"))


def test_refunds_are_listed_page_by_page(books: Books, now: datetime) -> None:
    for number in range(5):
        post(books, number, now)
    post(books, 5, now, tenant="shop", customer_id="ada", order_id="S-1", amount="1.00")
    seen: list[object] = []
    after = None
    for length in (4, 2):
        page = refunds.list_refunds(books, ListRefunds(tenant=None, after=after, limit=4), now)
        assert isinstance(page["refunds"], list)
        assert len(page["refunds"]) == length
        seen += [row["refund_id"] for row in page["refunds"]]
        after = page["next"] if page["next"] is None else str(page["next"])
    assert after is None
    assert seen == [f"RF-{number:06d}" for number in range(1, 7)]
    only = refunds.list_refunds(books, ListRefunds(tenant="shop", after=None, limit=4), now)
    assert only["refunds"] == [
        {
            "refund_id": "RF-000006",
            "idempotency_key": "k-5",
            "tenant": "shop",
            "ticket_id": "T-5",
            "order_id": "S-1",
            "amount": "1.00",
            "currency": "EUR",
            "at": now.isoformat(),
        }
    ]
    assert only["next"] is None


def test_a_full_last_page_is_followed_by_an_empty_one(books: Books, now: datetime) -> None:
    post(books, 1, now)
    page = refunds.list_refunds(books, ListRefunds(tenant=None, after=None, limit=1), now)
    assert page["next"] == "RF-000001"
    assert refunds.list_refunds(books, ListRefunds(tenant=None, after="RF-000001", limit=1), now)["refunds"] == []
