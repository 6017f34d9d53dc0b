"""The refunds that the books hold, read page by page through the sidecar, as everything of the internal systems is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import httpx
from pydantic import ValidationError

from app.daprd import Daprd
from app.errors import SystemUnavailable
from app.models import Currency, Frozen, InCurrency, Money, Reference, TenantId, TicketId

PAGE = 1_000
# Longer than the sidecar's own worst case (three tries of 15 s and the pauses between them), as in `app/systems.py`.
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


class _Page(Frozen):
    ok: bool
    refunds: tuple[PostedRefund, ...] = ()
    next: str | None = None
    code: str = ""
    message: str = ""


def posted_refunds(daprd: Daprd) -> Iterator[PostedRefund]:
    """All refunds of all tenants, in the order in which they were posted. Raises SystemUnavailable."""
    with daprd.client(_GIVE_UP_SECONDS) as client:
        after: str | None = None
        while True:
            page = _page(client, after)
            yield from page.refunds
            if page.next is None:
                return
            if page.next == after:
                raise _unavailable(f"page {after} is followed by itself")
            after = page.next


def _page(client: httpx.Client, after: str | None) -> _Page:
    question = {"tenant": None, "after": after, "limit": PAGE}
    try:
        response = client.post("/v1.0/invoke/refunds/method/list", json=question)
        response.raise_for_status()
        page = _Page.model_validate_json(response.content)
    except httpx.HTTPStatusError as error:
        raise _unavailable(f"status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise _unavailable(f"{type(error).__name__} at the sidecar {client.base_url}") from None
    except ValidationError:
        raise _unavailable("the answer is not one we understand") from None
    if not page.ok:
        raise _unavailable(f"refused, {page.code or 'without a reason'}")
    return page


def _unavailable(why: str) -> SystemUnavailable:
    return SystemUnavailable(
        f"refunds/list: {why}; check with `refund-agent doctor` whether sidecar and refund system are up, and try again"
    )
