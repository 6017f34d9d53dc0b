"""Requests to the internal systems for tests: the load generator's customers have orders of 20.00 EUR."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sandbox.systems import cases, refunds
from sandbox.systems.books import Books
from sandbox.systems.requests import CloseCase, PostRefund


def refund_body(number: int, **changes: Any) -> dict[str, Any]:
    """A refund of 20.00 EUR for ticket `T-<number>`."""
    return {
        "idempotency_key": f"k-{number}",
        "tenant": "bench",
        "ticket_id": f"T-{number}",
        "customer_id": f"load-{number:05d}",
        "order_id": f"LD-{number:05d}",
        "amount": "20.00",
        "currency": "EUR",
        **changes,
    }


def case_body(number: int, refund_id: str | None, **changes: Any) -> dict[str, Any]:
    """The case of that ticket, closed with a refund or without one."""
    return {
        "idempotency_key": f"c-{number}",
        "tenant": "bench",
        "ticket_id": f"T-{number}",
        "outcome": "refunded" if refund_id else "answered",
        "refund_id": refund_id,
        **changes,
    }


def post(books: Books, number: int, now: datetime, **changes: Any) -> str:
    """Posts that refund and gives its id."""
    answer = refunds.post(books, PostRefund.model_validate(refund_body(number, **changes)), now)
    return str(answer["refund_id"])


def close(books: Books, number: int, refund_id: str | None, now: datetime, **changes: Any) -> dict[str, object]:
    """Closes that case."""
    return cases.close_case(books, CloseCase.model_validate(case_body(number, refund_id, **changes)), now)
