"""A small shop with known orders, at a known time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from app.domain.models import Category
from sandbox.data import SeedBooks, SeedCustomer, SeedItem, SeedOrder, SeedPolicy, SeedTenant
from sandbox.systems.books import Books
from sandbox.systems.orders import seed

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def _shop() -> SeedBooks:
    lamp = SeedItem(sku="L-1", name="Lamp", quantity=1, unit_price=Decimal("30.00"))
    bulb = SeedItem(sku="B-1", name="Bulb", quantity=2, unit_price=Decimal("5.25"))
    delivered = SeedOrder(
        order_id="S-1",
        status="delivered",
        placed_days_ago=9,
        delivered_days_ago=5,
        currency="EUR",
        items=(lamp, bulb),
    )
    twice = SeedOrder(
        order_id="S-2",
        status="shipped",
        placed_days_ago=3,
        currency="EUR",
        overcharged=Decimal("30.00"),
        refunded=Decimal("10.00"),
        items=(lamp,),
    )
    policy = SeedPolicy(
        category=Category.DAMAGED, window_days=30, counted_from="delivery", refund_percent=90, text="Ninety."
    )
    ada = SeedCustomer(
        customer_id="ada", tier="gold", since_days=100, risk="low", refunds_90d=1, orders=(delivered, twice)
    )
    bob = SeedCustomer(customer_id="bob", tier="standard", since_days=7, risk="high", refunds_90d=0)
    return SeedBooks(tenants=(SeedTenant(tenant="shop", name="Shop", policies=(policy,), customers=(ada, bob)),))


def make_shop(path: Path) -> None:
    """Writes the books of the small shop."""
    books = Books(path)
    assert seed(books, _shop, NOW)
    books.close()


@pytest.fixture
def now() -> datetime:
    """The time at which the shop was seeded."""
    return NOW


@pytest.fixture
def books_path(tmp_path: Path) -> Path:
    """A file with the books of the small shop."""
    path = tmp_path / "systems.sqlite"
    make_shop(path)
    return path


@pytest.fixture
def books(books_path: Path) -> Iterator[Books]:
    """An open connection to the books of the small shop."""
    opened = Books(books_path)
    yield opened
    opened.close()
