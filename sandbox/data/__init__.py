"""The sample data: customers' tickets, the expected result of each ticket, and the shops' initial books.

The results in `expected.jsonl` follow from the books, the policies and the agent's guards, not from a model's answers.
All persons, addresses and numbers are invented.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from app.domain.models import (
    Category,
    Currency,
    Frozen,
    Money,
    Outcome,
    Reference,
    Refund,
    TaskStatus,
    TenantId,
    Ticket,
)

FOLDER = Path(__file__).parent
TICKETS_FILE = FOLDER / "tickets.jsonl"
EXPECTED_FILE = FOLDER / "expected.jsonl"
BOOKS_FILE = FOLDER / "books.json"

Days = Annotated[int, Field(ge=0)]


class SeedItem(Frozen):
    """One line of an order."""

    sku: str
    name: str
    quantity: Annotated[int, Field(ge=1)]
    unit_price: Money


class SeedOrder(Frozen):
    """An order. Days are counted back from the day of seeding."""

    order_id: Reference
    status: Literal["processing", "shipped", "delivered", "cancelled"]
    placed_days_ago: Days
    delivered_days_ago: Days | None = None
    currency: Currency
    overcharged: Money = Decimal(0)  # charged in addition to the total
    refunded: Money = Decimal(0)  # refunded before the first sample ticket
    items: Annotated[tuple[SeedItem, ...], Field(min_length=1)]

    @cached_property
    def total(self) -> Decimal:
        """The price of all items."""
        return sum((item.unit_price * item.quantity for item in self.items), Decimal(0))

    @cached_property
    def charged(self) -> Decimal:
        """The amount that the customer paid."""
        return self.total + self.overcharged


class SeedCustomer(Frozen):
    """A customer with all orders."""

    customer_id: Reference
    tier: Literal["standard", "gold"]
    since_days: Days
    risk: Literal["low", "high"]
    refunds_90d: Annotated[int, Field(ge=0)]
    orders: tuple[SeedOrder, ...] = ()


class SeedPolicy(Frozen):
    """A tenant's refund policy for one category."""

    category: Category
    window_days: Days
    counted_from: Literal["delivery", "order"]
    refund_percent: Annotated[int, Field(ge=0, le=100)]
    text: str


class SeedTenant(Frozen):
    """One shop."""

    tenant: TenantId
    name: str
    policies: tuple[SeedPolicy, ...]
    customers: tuple[SeedCustomer, ...]


class SeedBooks(Frozen):
    """The initial content of the internal systems."""

    tenants: tuple[SeedTenant, ...]


class Expectation(Frozen):
    """The expected result of one ticket.

    `clear`: any careful person would choose this category. A waiting task has no outcome; its `refund` is the refund
    that is proposed to the person, None if there is none.
    """

    task_id: str
    kind: str  # why the ticket is among the samples
    language: str  # ISO 639-1, of the customer's own words
    clear: bool
    category: Category
    status: Literal[TaskStatus.COMPLETED, TaskStatus.WAITING]
    outcome: Outcome | None
    refund: Refund | None


def load_tickets(path: Path = TICKETS_FILE) -> tuple[Ticket, ...]:
    """The tickets of a file with one JSON object per line. Raises pydantic's ValidationError for a malformed line."""
    return tuple(Ticket.model_validate_json(line) for line in _lines(path))


def load_expected(path: Path = EXPECTED_FILE) -> dict[str, Expectation]:
    """The expected results by task id."""
    expectations = (Expectation.model_validate_json(line) for line in _lines(path))
    return {expectation.task_id: expectation for expectation in expectations}


def load_books(path: Path = BOOKS_FILE) -> SeedBooks:
    """The initial books. Raises pydantic's ValidationError if the file does not fit."""
    return SeedBooks.model_validate_json(path.read_bytes())


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
