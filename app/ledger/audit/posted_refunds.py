"""The refunds that the books hold, read page by page through the sidecar, as everything of the internal systems is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import httpx
from pydantic import ValidationError

from app.dapr.daprd import Daprd
from app.domain.errors import SystemUnavailable
from app.domain.models import Currency, Frozen, InCurrency, Money, Reference, TenantId, TicketId

PAGE = 1_000
# Longer than the sidecar's own worst case (three tries of 15 s and the pauses between them).
_GIVE_UP_SECONDS = 90.0


class PostedRefund(InCurrency):
    """A refund as refunds/list tells of it."""

    refund_id: Reference
    idempotency_key: str
    tenant: TenantId
    ticket_id: TicketId
    order_id: Reference
    currency: Currency
    amount: Money
    at: datetime


class PromisedRefund(InCurrency):
    """A refund that the books have committed and nobody has posted yet, as refunds/promised tells of it."""

    tenant: TenantId
    ticket_id: TicketId
    order_id: Reference
    currency: Currency
    amount: Money
    at: datetime


class _Page(Frozen):
    ok: bool
    refunds: tuple[PostedRefund, ...] = ()
    promised: tuple[PromisedRefund, ...] = ()
    next: str | None = None
    code: str = ""
    message: str = ""


def posted_refunds(daprd: Daprd) -> Iterator[PostedRefund]:
    """All refunds of all tenants, in the order in which they were posted. Raises SystemUnavailable."""
    for page in _pages(daprd, "list", {"tenant": None}):
        yield from page.refunds


def promised_refunds(daprd: Daprd) -> Iterator[PromisedRefund]:
    """All commitments of all tenants that are not posted yet. Raises SystemUnavailable."""
    for page in _pages(daprd, "promised", {}):
        yield from page.promised


def _pages(daprd: Daprd, method: str, question: dict[str, None]) -> Iterator[_Page]:
    with daprd.client(_GIVE_UP_SECONDS) as client:
        after: str | None = None
        while True:
            page = _page(client, method, question | {"after": after, "limit": PAGE})
            yield page
            if page.next is None:
                return
            if page.next == after:
                raise _unavailable(method, f"page {after} is followed by itself")
            after = page.next


def _page(client: httpx.Client, method: str, question: dict[str, object]) -> _Page:
    try:
        response = client.post(f"/v1.0/invoke/refunds/method/{method}", json=question)
        response.raise_for_status()
        page = _Page.model_validate_json(response.content)
    except httpx.HTTPStatusError as error:
        raise _unavailable(method, f"status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise _unavailable(method, f"{type(error).__name__} at the sidecar {client.base_url}") from None
    except ValidationError:
        raise _unavailable(method, "the answer is not one we understand") from None
    if not page.ok:
        raise _unavailable(method, f"refused, {page.code or 'without a reason'}")
    return page


def _unavailable(method: str, why: str) -> SystemUnavailable:
    return SystemUnavailable(
        f"refunds/{method}: {why}; check with `refund-agent doctor` whether sidecar and refund system are up, and try "
        "again"
    )
