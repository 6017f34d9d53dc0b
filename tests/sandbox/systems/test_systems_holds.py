"""Money that is kept for a ticket is nobody else's, until it is paid, given back, or its time is over."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from sandbox.systems import cases, orders, refunds
from sandbox.systems.books import Books, to_minor, to_text
from sandbox.systems.requests import Answer, GetCase, GetOrder, HoldRefund, PostRefund, VoidRefund

# The small shop's first order is 40.50 EUR.
MINE: dict[str, Any] = {
    "idempotency_key": "k-1",
    "tenant": "shop",
    "ticket_id": "T-1",
    "customer_id": "ada",
    "order_id": "S-1",
    "amount": "30.00",
    "currency": "EUR",
}
THEIRS = MINE | {"idempotency_key": "k-2", "ticket_id": "T-2"}


def hold(books: Books, now: datetime, body: dict[str, Any], hours: float = 96, **changes: Any) -> Answer:
    return refunds.hold(books, HoldRefund.model_validate(body | {"hours": hours} | changes), now)


def commit(books: Books, now: datetime, body: dict[str, Any], **changes: Any) -> Answer:
    return refunds.commit(books, PostRefund.model_validate(body | changes), now)


def post(books: Books, now: datetime, body: dict[str, Any], **changes: Any) -> Answer:
    return refunds.post(books, PostRefund.model_validate(body | changes), now)


def void(books: Books, now: datetime, ticket_id: str = "T-1") -> Answer:
    return refunds.void(books, VoidRefund(tenant="shop", ticket_id=ticket_id), now)


def seen(books: Books, now: datetime, ticket_id: str | None) -> tuple[object, object]:
    """What is held and what is refundable, as that ticket sees the order."""
    asked = GetOrder(tenant="shop", ticket_id=ticket_id, customer_id="ada", order_id="S-1")
    order: Any = orders.get_order(books, asked, now)["order"]
    return order["held"], order["refundable"]


def test_what_is_held_counts_for_every_other_ticket_and_not_for_its_own(books: Books, now: datetime) -> None:
    answer: Any = hold(books, now, MINE)
    assert answer["hold"]["state"] == "held"
    assert answer["exposure"]["refunded_90d"] == "0.00"
    assert seen(books, now, "T-1") == ("0.00", "40.50")
    assert seen(books, now, "T-2") == seen(books, now, None) == ("30.00", "10.50")
    assert hold(books, now, THEIRS)["code"] == "exceeds_refundable"
    other: Any = hold(books, now, THEIRS, amount="10.50")["exposure"]
    assert (other["refunds_90d"], other["refunded_90d"], other["order"]["held"]) == (2, "30.00", "30.00")


def test_a_hold_ends_by_itself_and_a_commitment_does_not(books: Books, now: datetime) -> None:
    hold(books, now, MINE, hours=1)
    later = now + timedelta(hours=2)
    assert seen(books, later, "T-2") == ("0.00", "40.50")
    assert commit(books, later, MINE) == {"ok": True}, "nobody has taken the money meanwhile"
    assert seen(books, later + timedelta(days=999), "T-2") == ("30.00", "10.50")
    assert post(books, later + timedelta(days=999), MINE)["created"] is True


def test_a_hold_that_has_ended_is_not_committed_once_another_has_the_money(books: Books, now: datetime) -> None:
    hold(books, now, MINE, hours=1)
    later = now + timedelta(hours=2)
    assert hold(books, later, THEIRS)["ok"] is True
    assert commit(books, later, MINE)["code"] == "exceeds_refundable"


def test_a_ticket_keeps_the_refund_that_was_committed_first(books: Books, now: datetime) -> None:
    commit(books, now, MINE)
    assert commit(books, now, MINE, amount="20.00")["code"] == "already_committed"
    assert post(books, now, MINE, amount="20.00")["code"] == "already_committed"
    again: Any = hold(books, now, MINE, amount="20.00")["hold"]
    assert (again["state"], again["refund"]["amount"]) == ("committed", "30.00")
    assert void(books, now)["code"] == "already_committed"
    post(books, now, MINE)
    again = hold(books, now, MINE, amount="20.00")["hold"]
    assert (again["state"], again["refund"]["amount"], again["refund_id"]) == ("posted", "30.00", "RF-000001")


@pytest.mark.parametrize("held_before", [True, False])
def test_a_ticket_that_has_ended_without_a_refund_gets_none(books: Books, now: datetime, held_before: bool) -> None:
    if held_before:
        hold(books, now, MINE)
    assert void(books, now) == void(books, now) == {"ok": True}
    assert seen(books, now, "T-2") == ("0.00", "40.50")
    for ask in (hold, commit, post):
        assert ask(books, now, MINE)["code"] == "ticket_voided"


def test_what_happened_for_a_ticket_is_known_by_its_name(books: Books, now: datetime) -> None:
    asked = GetCase(tenant="shop", ticket_id="T-1")
    assert cases.get_case(books, asked, now)["effects"] == {"hold": None, "told": None}
    hold(books, now, MINE)
    effects: Any = cases.get_case(books, asked, now)["effects"]
    assert effects["hold"]["refund"] == {"order_id": "S-1", "amount": "30.00", "currency": "EUR"}


@pytest.mark.parametrize(
    ("minor", "currency", "text"), [(1234, "KWD", "1.234"), (100, "JPY", "100"), (5, "USD", "0.05")]
)
def test_amounts_are_whole_minor_units_of_their_currency(minor: int, currency: str, text: str) -> None:
    assert to_text(minor, currency) == text
    assert to_minor(Decimal(text), currency) == minor
