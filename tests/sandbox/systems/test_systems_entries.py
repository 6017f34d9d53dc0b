"""Entries are made once per key: refunds, notifications and cases."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from sandbox.systems import cases, entries, orders, refunds
from sandbox.systems.books import Books
from sandbox.systems.requests import CloseCase, GetAccount, GetOrder, PostRefund, SendNotification

REFUND = PostRefund.model_validate(
    {
        "idempotency_key": "k-1",
        "tenant": "shop",
        "ticket_id": "T-1",
        "customer_id": "ada",
        "order_id": "S-1",
        "amount": "30.00",
        "currency": "EUR",
    }
)


def _refund(**changes: str) -> PostRefund:
    fields = {**REFUND.model_dump(), "amount": str(REFUND.amount), **changes}
    return PostRefund.model_validate(fields)


def _refundable(books: Books, now: datetime) -> object:
    order = orders.get_order(books, GetOrder(tenant="shop", customer_id="ada", order_id="S-1"), now)["order"]
    assert isinstance(order, dict)
    return order["refundable"]


def test_refund_is_posted_once_and_raises_refunded_once(books: Books, now: datetime) -> None:
    assert refunds.post(books, REFUND, now) == {"ok": True, "refund_id": "RF-000001", "created": True}
    again = refunds.post(books, _refund(amount="30"), now + timedelta(hours=1))
    assert again == {"ok": True, "refund_id": "RF-000001", "created": False}
    assert _refundable(books, now) == "10.50"
    assert entries.book_rows(books, "refunds") == [
        {
            "refund_id": "RF-000001",
            "tenant": "shop",
            "idempotency_key": "k-1",
            "ticket_id": "T-1",
            "customer_id": "ada",
            "order_id": "S-1",
            "amount": "30.00",
            "currency": "EUR",
            "at": "2026-03-10T12:00:00+00:00",
        }
    ]


@pytest.mark.parametrize(
    "changes", [{"amount": "29.99"}, {"ticket_id": "T-2"}, {"order_id": "S-2"}, {"currency": "USD"}]
)
def test_same_key_with_another_body_is_a_conflict(books: Books, now: datetime, changes: dict[str, str]) -> None:
    refunds.post(books, REFUND, now)
    answer = refunds.post(books, _refund(**changes), now)
    assert (answer["ok"], answer["code"]) == (False, "idempotency_conflict")
    assert len(entries.book_rows(books, "refunds")) == 1
    assert _refundable(books, now) == "10.50"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"customer_id": "bob"}, "order_not_found"),
        ({"order_id": "S-9"}, "order_not_found"),
        ({"tenant": "other"}, "order_not_found"),
        ({"currency": "USD"}, "currency_mismatch"),
        ({"amount": "40.51"}, "exceeds_refundable"),
        ({"amount": "999999999999.99"}, "exceeds_refundable"),
    ],
)
def test_refused_refund_moves_nothing(books: Books, now: datetime, changes: dict[str, str], code: str) -> None:
    answer = refunds.post(books, _refund(**changes), now)
    assert (answer["ok"], answer["code"]) == (False, code)
    assert entries.book_rows(books, "refunds") == []
    assert _refundable(books, now) == "40.50"


def test_a_refused_key_may_be_used_again(books: Books, now: datetime) -> None:
    refunds.post(books, _refund(amount="40.51"), now)
    assert refunds.post(books, _refund(amount="40.50"), now)["created"] is True
    more = _refund(amount="0.01", idempotency_key="k-2", ticket_id="T-2")
    assert refunds.post(books, more, now)["code"] == "exceeds_refundable"


@pytest.mark.parametrize("changes", [{}, {"amount": "1.00"}, {"order_id": "S-2"}])
def test_a_ticket_gets_one_refund_under_whatever_key(books: Books, now: datetime, changes: dict[str, str]) -> None:
    refunds.post(books, REFUND, now)
    answer = refunds.post(books, _refund(idempotency_key="k-2", **changes), now)
    assert (answer["ok"], answer["code"]) == (False, "ticket_already_refunded")
    assert "RF-000001: 30.00 EUR for order S-1" in str(answer["message"])
    assert len(entries.book_rows(books, "refunds")) == 1
    assert _refundable(books, now) == "10.50"
    assert refunds.post(books, REFUND, now)["created"] is False


def test_another_tenants_ticket_of_the_same_name_is_another_ticket(books: Books, now: datetime) -> None:
    visitor = {"tenant": "bench", "customer_id": "load-00007", "order_id": "LD-00007", "amount": "20.00"}
    refunds.post(books, REFUND, now)
    assert refunds.post(books, _refund(idempotency_key="k-2", **visitor), now)["created"] is True


def test_keys_of_two_tenants_do_not_meet(books: Books, now: datetime) -> None:
    visitor = {"tenant": "bench", "customer_id": "load-00007", "order_id": "LD-00007", "amount": "20.00"}
    assert refunds.post(books, REFUND, now)["created"] is True
    assert refunds.post(books, _refund(**visitor), now)["created"] is True


def test_refund_of_a_visitor_is_a_real_row(books: Books, now: datetime) -> None:
    visitor = {"tenant": "bench", "customer_id": "load-00007", "order_id": "LD-00007"}
    assert refunds.post(books, _refund(amount="15.00", **visitor), now)["created"] is True
    more = _refund(amount="5.01", idempotency_key="k-2", ticket_id="T-2", **visitor)
    assert refunds.post(books, more, now)["code"] == "exceeds_refundable"
    account = orders.get_account(books, GetAccount(tenant="bench", customer_id="load-00007"), now)["account"]
    assert isinstance(account, dict)
    assert (account["refunds_90d"], len(account["orders"])) == (1, 1)


def test_posted_refunds_count_for_ninety_days(books: Books, now: datetime) -> None:
    def count(at: datetime) -> object:
        account = orders.get_account(books, GetAccount(tenant="shop", customer_id="ada"), at)["account"]
        assert isinstance(account, dict)
        return account["refunds_90d"]

    refunds.post(books, REFUND, now)
    assert (count(now), count(now + timedelta(days=90)), count(now + timedelta(days=91))) == (2, 2, 1)


LETTER: dict[str, Any] = {
    "idempotency_key": "n-1",
    "tenant": "shop",
    "ticket_id": "T-1",
    "customer_id": "ada",
    "outcome": "refunded",
    "refund": {"order_id": "S-1", "amount": "30.00", "currency": "EUR"},
    "text": "Your money is back.",
}


def test_notification_goes_out_once(books: Books, now: datetime) -> None:
    body = SendNotification.model_validate(LETTER)
    assert cases.send_notification(books, body, now) == {
        "ok": True,
        "notification_id": "NT-000001",
        "created": True,
    }
    assert cases.send_notification(books, body, now)["created"] is False
    other_words = body.model_copy(update={"text": "Something else."})
    assert cases.send_notification(books, other_words, now)["created"] is False, "the same letter in other words"
    for changes in ({"outcome": "declined", "refund": None}, {"refund": LETTER["refund"] | {"amount": "30.01"}}):
        other = SendNotification.model_validate(LETTER | changes)
        assert cases.send_notification(books, other, now)["code"] == "idempotency_conflict"
    assert [row["text"] for row in entries.book_rows(books, "notifications")] == ["Your money is back."]


def test_notification_to_nobody_is_refused(books: Books, now: datetime) -> None:
    body = SendNotification.model_validate(LETTER | {"customer_id": "eve"})
    assert cases.send_notification(books, body, now)["code"] == "account_not_found"
    visitor = body.model_copy(update={"tenant": "bench", "customer_id": "load-1"})
    assert cases.send_notification(books, visitor, now)["created"] is True


def test_case_is_closed_once(books: Books, now: datetime) -> None:
    fields = {"idempotency_key": "c-1", "tenant": "shop", "ticket_id": "T-1", "refund_id": None}
    closed = CloseCase.model_validate({**fields, "outcome": "answered"})
    assert cases.close_case(books, closed, now) == {"ok": True, "case_id": "CS-000001", "created": True}
    assert cases.close_case(books, closed, now)["created"] is False
    other = CloseCase.model_validate({**fields, "outcome": "declined"})
    assert cases.close_case(books, other, now)["code"] == "idempotency_conflict"
    assert len(entries.book_rows(books, "cases")) == 1
