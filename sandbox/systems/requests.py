"""The request models of the systems, strict about keys and types, and the two forms of an answer."""

from __future__ import annotations

import re
from datetime import UTC
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from app.domain.models import Currency, Frozen, InCurrency, Outcome, Reference, TenantId, TicketId

Answer = dict[str, object]


def ok(**fields: object) -> Answer:
    """The answer of a system that carried out the request."""
    return {"ok": True, **fields}


def refusal(code: str, message: str) -> Answer:
    """The answer of a system that refuses the request; a repeat would be refused as well."""
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
    """orders/get. Money held for the ticket `ticket_id` does not count as held."""

    tenant: TenantId
    ticket_id: TicketId | None = None
    customer_id: Reference
    order_id: Reference


class GetPolicy(Frozen):
    """policies/get. Any word is accepted; only refundable categories have a policy."""

    tenant: TenantId
    category: Annotated[str, Field(max_length=64)]


class PostRefund(InCurrency):
    """refunds/post and refunds/commit. The key identifies this refund in repeated requests."""

    idempotency_key: IdempotencyKey
    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference
    amount: Amount
    currency: Currency


class HoldRefund(PostRefund):
    """refunds/hold. The hold expires after `hours` unless it is committed before."""

    hours: Annotated[float, Field(gt=0, le=24 * 365)]


class VoidRefund(Frozen):
    """refunds/void: the ticket ends without a refund."""

    tenant: TenantId
    ticket_id: TicketId


class ListRefunds(Frozen):
    """refunds/list. `tenant` null means all tenants; `after` is the cursor of the previous page, null for the first."""

    tenant: TenantId | None
    after: RefundId | None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)]


class ListPromised(Frozen):
    """refunds/promised. `after` is the cursor of the previous page, null for the first."""

    after: Annotated[str, Field(max_length=100)] | None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)]


class Promised(InCurrency):
    """The refund that a letter names."""

    order_id: Reference
    amount: Amount
    currency: Currency


class SendNotification(Frozen):
    """notifications/send. `outcome` and `refund` are what the letter states, independent of its wording."""

    idempotency_key: IdempotencyKey
    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    outcome: Outcome
    refund: Promised | None
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class GetCase(Frozen):
    """cases/get: the ticket's effects so far."""

    tenant: TenantId
    ticket_id: TicketId


class CloseCase(Frozen):
    """cases/close. `refund_id` is the ticket's refund, null without one."""

    idempotency_key: IdempotencyKey
    tenant: TenantId
    ticket_id: TicketId
    outcome: Outcome
    refund_id: Reference | None


class IssuedRefund(InCurrency):
    """The data of the event "refund issued": ids and money, without the customer."""

    refund_id: Reference
    ticket_id: TicketId
    order_id: Reference
    amount: Amount
    currency: Currency


class RefundIssued(Frozen):
    """bookkeeping/record: a CloudEvents 1.0 event, identified by `source` and `id`."""

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    type: Literal["refund.issued"]
    time: Instant
    datacontenttype: Literal["application/json"]
    tenant: TenantId
    data: IssuedRefund
