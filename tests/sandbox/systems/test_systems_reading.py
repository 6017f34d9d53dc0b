"""What the books say to a reader: accounts, orders and policies, per tenant and per customer."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError
from sandbox.data import SeedBooks
from sandbox.systems import orders
from sandbox.systems.books import Books
from sandbox.systems.orders import seed
from sandbox.systems.requests import GetAccount, GetOrder, GetPolicy

ADA = GetAccount(tenant="shop", customer_id="ada")


def test_account_lists_its_orders_newest_first(books: Books, now: datetime) -> None:
    assert orders.get_account(books, ADA, now) == {
        "ok": True,
        "account": {
            "customer_id": "ada",
            "tier": "gold",
            "since_days": 100,
            "risk": "low",
            "refunds_90d": 1,
            "orders": [
                {
                    "order_id": "S-2",
                    "status": "shipped",
                    "placed_days_ago": 3,
                    "total": "30.00",
                    "currency": "EUR",
                    "items": ["Lamp"],
                },
                {
                    "order_id": "S-1",
                    "status": "delivered",
                    "placed_days_ago": 9,
                    "total": "40.50",
                    "currency": "EUR",
                    "items": ["Lamp", "Bulb"],
                },
            ],
        },
    }


def test_order_in_full(books: Books, now: datetime) -> None:
    body = GetOrder(tenant="shop", customer_id="ada", order_id="S-1")
    assert orders.get_order(books, body, now) == {
        "ok": True,
        "order": {
            "order_id": "S-1",
            "status": "delivered",
            "placed_days_ago": 9,
            "delivered_days_ago": 5,
            "currency": "EUR",
            "total": "40.50",
            "charged": "40.50",
            "refunded": "0.00",
            "held": "0.00",
            "refundable": "40.50",
            "items": [
                {"sku": "L-1", "name": "Lamp", "quantity": 1, "unit_price": "30.00"},
                {"sku": "B-1", "name": "Bulb", "quantity": 2, "unit_price": "5.25"},
            ],
        },
    }


def test_double_charge_shows_in_charged_and_refundable(books: Books, now: datetime) -> None:
    answer = orders.get_order(books, GetOrder(tenant="shop", customer_id="ada", order_id="S-2"), now)
    order = answer["order"]
    assert isinstance(order, dict)
    assert (order["total"], order["charged"], order["refunded"], order["refundable"]) == (
        "30.00",
        "60.00",
        "10.00",
        "50.00",
    )
    assert order["delivered_days_ago"] is None


def test_days_are_counted_from_the_clock_not_from_the_seeding(books: Books, now: datetime) -> None:
    body = GetOrder(tenant="shop", customer_id="ada", order_id="S-1")
    order = orders.get_order(books, body, now + timedelta(days=2))["order"]
    assert isinstance(order, dict)
    assert (order["placed_days_ago"], order["delivered_days_ago"]) == (11, 7)


@pytest.mark.parametrize(
    ("tenant", "customer", "order"),
    [("shop", "bob", "S-1"), ("other", "ada", "S-1"), ("shop", "ada", "S-9"), ("shop", "load-00001", "LD-00001")],
)
def test_order_of_somebody_else_is_not_found(
    books: Books, now: datetime, tenant: str, customer: str, order: str
) -> None:
    answer = orders.get_order(books, GetOrder(tenant=tenant, customer_id=customer, order_id=order), now)
    assert (answer["ok"], answer["code"]) == (False, "order_not_found")


def test_account_of_another_tenant_is_not_found(books: Books, now: datetime) -> None:
    answer = orders.get_account(books, GetAccount(tenant="other", customer_id="ada"), now)
    assert (answer["ok"], answer["code"]) == (False, "account_not_found")


def test_policy_and_its_absence(books: Books, now: datetime) -> None:
    found = orders.get_policy(books, GetPolicy(tenant="shop", category="damaged"), now)
    assert found == {
        "ok": True,
        "policy": {
            "category": "damaged",
            "window_days": 30,
            "counted_from": "delivery",
            "refund_percent": 90,
            "text": "Ninety.",
        },
    }
    assert orders.get_policy(books, GetPolicy(tenant="shop", category="question"), now)["code"] == "no_policy"


def test_visitor_of_a_load_generator_needs_no_seeding(books: Books, now: datetime) -> None:
    account = orders.get_account(books, GetAccount(tenant="bench", customer_id="load-0123456"), now)["account"]
    assert isinstance(account, dict)
    assert [order["order_id"] for order in account["orders"]] == ["LD-0123456"]
    assert (account["risk"], account["refunds_90d"]) == ("low", 0)
    body = GetOrder(tenant="bench", customer_id="load-0123456", order_id="LD-0123456")
    order = orders.get_order(books, body, now)["order"]
    assert isinstance(order, dict)
    assert (order["refundable"], order["currency"], order["delivered_days_ago"]) == ("20.00", "EUR", 3)
    foreign = GetOrder(tenant="bench", customer_id="load-0123456", order_id="LD-0123457")
    assert orders.get_order(books, foreign, now)["code"] == "order_not_found"


def test_visitors_exist_for_the_bench_tenant_only(books: Books, now: datetime) -> None:
    answer = orders.get_account(books, GetAccount(tenant="shop", customer_id="load-00001"), now)
    assert answer["code"] == "account_not_found"


def test_books_are_seeded_once(books: Books, now: datetime) -> None:
    def never() -> SeedBooks:
        raise AssertionError("the data was read again")

    assert not seed(books, never, now)


def test_books_of_another_schema_are_refused_with_the_remedy(books: Books, books_path: Path) -> None:
    with books.transaction():
        books.change("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match=r"schema 99.*delete the file"):
        Books(books_path)
