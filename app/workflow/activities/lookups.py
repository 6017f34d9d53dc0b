"""The tools between the turns of a draft: the order and the refund policy, from our own books."""

from __future__ import annotations

from typing import Any

from dapr.ext.workflow import WorkflowActivityContext

from app.domain.errors import Refused
from app.domain.models import Category, Frozen
from app.domain.orders import Order, RefundPolicy
from app.workflow.activities.services import Activity, Services


class OrderInput(Frozen):
    """Which order, for which ticket; one of another customer is as unknown as one that never was."""

    tenant: str
    ticket_id: str
    customer_id: str
    order_id: str


class OrderOutput(Frozen):
    """The order, or the code of why there is none."""

    order: Order | None
    problem: str | None


class PolicyInput(Frozen):
    """Which terms."""

    tenant: str
    category: Category


class PolicyOutput(Frozen):
    """The terms, or the code of why there are none."""

    policy: RefundPolicy | None
    problem: str | None


def lookup_order(services: Services) -> Activity:
    """Builds the tool."""

    async def lookup_order(_context: WorkflowActivityContext, question: OrderInput) -> OrderOutput:
        found, problem = await _asked(services, "orders", question)
        return OrderOutput(order=Order.model_validate(found["order"]) if found else None, problem=problem)

    return lookup_order


def lookup_refund_policy(services: Services) -> Activity:
    """Builds the tool."""

    async def lookup_refund_policy(_context: WorkflowActivityContext, question: PolicyInput) -> PolicyOutput:
        found, problem = await _asked(services, "policies", question)
        return PolicyOutput(policy=RefundPolicy.model_validate(found["policy"]) if found else None, problem=problem)

    return lookup_refund_policy


async def _asked(services: Services, system: str, question: Frozen) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return await services.systems.ask(system, "get", question.model_dump(mode="json")), None
    except Refused as refusal:
        return None, refusal.code
