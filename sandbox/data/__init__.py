"""The sample data: tickets as customers write them, what must come of each, and the shops' books.

`tickets.jsonl` is what a run works, `expected.jsonl` what a good agent must do with it (it follows from the
books, the policies and the agent's guards, not from what some model would say), `books.json` what the
internal systems are seeded with. All persons, addresses and numbers are made up.
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
    """An order; days are counted back from the day of seeding, sums follow from the items unless given."""

    order_id: Reference
    status: Literal["processing", "shipped", "delivered", "cancelled"]
    placed_days_ago: Days
    delivered_days_ago: Days | None = None
    currency: Currency
    overcharged: Money = Decimal(0)  # what was taken beyond the total
    refunded: Money = Decimal(0)  # what went back before the samples begin
    items: Annotated[tuple[SeedItem, ...], Field(min_length=1)]

    @cached_property
    def total(self) -> Decimal:
        """What the items cost together."""
        return sum((item.unit_price * item.quantity for item in self.items), Decimal(0))

    @cached_property
    def charged(self) -> Decimal:
        """What was taken from the customer."""
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
    """What a tenant pays back for one category."""

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
    """Everything the internal systems know before the first refund."""

    tenants: tuple[SeedTenant, ...]


class Expectation(Frozen):
    """What a good agent must do with one ticket.

    `clear` says that any careful person would give this category. A waiting task has no outcome yet; its
    `refund` is the one that a good agent lays before a person, or None where there is none to propose.
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
    """Reads tickets, one JSON object a line. Raises pydantic's ValidationError for a line that is none."""
    return tuple(Ticket.model_validate_json(line) for line in _lines(path))


def load_expected(path: Path = EXPECTED_FILE) -> dict[str, Expectation]:
    """Reads the expectations by task id."""
    read = (Expectation.model_validate_json(line) for line in _lines(path))
    return {expectation.task_id: expectation for expectation in read}


def load_books(path: Path = BOOKS_FILE) -> SeedBooks:
    """Reads the books. Raises pydantic's ValidationError when the file does not fit."""
    return SeedBooks.model_validate_json(path.read_bytes())


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
