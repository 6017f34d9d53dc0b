"""The request bodies that each system takes, strict about keys and types, and the two shapes of an answer. Pure."""

from __future__ import annotations

import re
from datetime import UTC
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from app.domain.models import Currency, Frozen, InCurrency, Outcome, Reference, TenantId, TicketId

# The two shapes of an answer: pure, no I/O.

Answer = dict[str, object]


def ok(**fields: object) -> Answer:
    """The answer of a system that did what it was asked."""
    return {"ok": True, **fields}


def refusal(code: str, message: str) -> Answer:
    """The answer of a system that understood and said no; asking again changes nothing."""
    return {"ok": False, "code": code, "message": message}


MAX_TEXT_CHARACTERS = 64_000
MAX_LISTED = 1_000
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,4})?")


def _amount(value: object) -> Decimal:
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or Decimal(value) == 0:
        raise ValueError('must be a decimal string above zero, like "12.30"')
    return Decimal(value)


Amount = Annotated[Decimal, BeforeValidator(_amount)]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=200)]
RefundId = Annotated[str, Field(pattern=r"^RF-\d{6,18}$")]
Instant = Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))]


class GetAccount(Frozen):
    """accounts/get."""

    tenant: TenantId
    customer_id: Reference


class GetOrder(Frozen):
    """orders/get. `ticket_id` is who asks: what is held for that ticket is not counted as held."""

    tenant: TenantId
    ticket_id: TicketId | None = None
    customer_id: Reference
    order_id: Reference


class GetPolicy(Frozen):
    """policies/get. Any word may be asked for; only refundable categories have a policy."""

    tenant: TenantId
    category: Annotated[str, Field(max_length=64)]


class PostRefund(InCurrency):
    """refunds/post and refunds/commit. The key stands for this refund, whoever posts it and however often."""

    idempotency_key: IdempotencyKey
    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference
    amount: Amount
    currency: Currency


class HoldRefund(PostRefund):
    """refunds/hold. The hold ends by itself after `hours`, unless it was committed by then."""

    hours: Annotated[float, Field(gt=0, le=24 * 365)]


class VoidRefund(Frozen):
    """refunds/void: the ticket ends without a refund."""

    tenant: TenantId
    ticket_id: TicketId


class ListRefunds(Frozen):
    """refunds/list. `tenant` null asks for those of all; `after` is the cursor of the page before, null at first."""

    tenant: TenantId | None
    after: RefundId | None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)]


class ListPromised(Frozen):
    """refunds/promised. `after` is the cursor of the page before, null at first."""

    after: Annotated[str, Field(max_length=100)] | None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)]


class Promised(InCurrency):
    """The refund that a letter names."""

    order_id: Reference
    amount: Amount
    currency: Currency


class SendNotification(Frozen):
    """notifications/send. `outcome` and `refund` are what the letter says, whatever its wording."""

    idempotency_key: IdempotencyKey
    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    outcome: Outcome
    refund: Promised | None
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class GetCase(Frozen):
    """cases/get: what has happened for a ticket so far."""

    tenant: TenantId
    ticket_id: TicketId


class CloseCase(Frozen):
    """cases/close. `refund_id` is the refund the case ended with, if any."""

    idempotency_key: IdempotencyKey
    tenant: TenantId
    ticket_id: TicketId
    outcome: Outcome
    refund_id: Reference | None


class IssuedRefund(InCurrency):
    """What the event "refund issued" tells: ids and money, nothing of the customer."""

    refund_id: Reference
    ticket_id: TicketId
    order_id: Reference
    amount: Amount
    currency: Currency


class RefundIssued(Frozen):
    """bookkeeping/record: one event in the form of CloudEvents 1.0; `source` and `id` together name it."""

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: Literal["refund.issued"]
    time: Instant
    datacontenttype: Literal["application/json"]
    tenant: TenantId
    data: IssuedRefund
