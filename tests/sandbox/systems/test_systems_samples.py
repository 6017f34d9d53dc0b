"""The systems and the sample data fit: every sample customer is there, every expected refund can be posted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from app.domain.models import TaskStatus
from sandbox.data import load_books, load_expected, load_tickets
from sandbox.systems import orders, refunds
from sandbox.systems.books import Books
from sandbox.systems.orders import seed
from sandbox.systems.requests import GetAccount, GetOrder, PostRefund


@pytest.fixture
def samples(tmp_path: Path, now: datetime) -> Iterator[Books]:
    """Books seeded with the sample data."""
    books = Books(tmp_path / "systems.sqlite")
    assert seed(books, load_books, now)
    yield books
    books.close()


def test_every_order_reads_as_the_data_says(samples: Books, now: datetime) -> None:
    for tenant in load_books().tenants:
        for customer in tenant.customers:
            for order in customer.orders:
                body = GetOrder(tenant=tenant.tenant, customer_id=customer.customer_id, order_id=order.order_id)
                read = orders.get_order(samples, body, now)["order"]
                assert isinstance(read, dict)
                days = (read["placed_days_ago"], read["delivered_days_ago"])
                assert days == (order.placed_days_ago, order.delivered_days_ago)
                assert (read["charged"], read["refunded"]) == (f"{order.charged:.2f}", f"{order.refunded:.2f}")


def test_every_ticket_has_an_account(samples: Books, now: datetime) -> None:
    for ticket in load_tickets():
        body = GetAccount(tenant=ticket.tenant, customer_id=ticket.customer_id)
        assert orders.get_account(samples, body, now)["ok"] is True, ticket.task_id


def test_all_expected_refunds_can_be_posted_together(samples: Books, now: datetime) -> None:
    expected = load_expected()
    for ticket in load_tickets():
        refund = expected[ticket.task_id].refund
        if refund is None or expected[ticket.task_id].status is TaskStatus.WAITING:
            continue
        body = PostRefund.model_validate(
            {
                "idempotency_key": ticket.task_id,
                "tenant": ticket.tenant,
                "ticket_id": ticket.ticket_id,
                "customer_id": ticket.customer_id,
                "order_id": refund.order_id,
                "amount": str(refund.amount),
                "currency": refund.currency,
            }
        )
        assert refunds.post(samples, body, now).get("created") is True, ticket.task_id
