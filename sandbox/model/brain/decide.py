"""What to do with a claim once order and policy are known: refund, decline, answer or escalate. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from app.domain.models import Action, Category
from sandbox.model.brain.amounts import claim_worth
from sandbox.model.brain.lookups import Lookups, Order, Policy
from sandbox.model.brain.signals import Signals

_NEEDS_DELIVERY = (Category.DAMAGED, Category.WRONG_ITEM)


@dataclass(frozen=True)
class Decision:
    """What the draft proposes; `reason` is a short code and names the reply's template."""

    action: Action
    reason: str
    order_id: str | None = None
    amount: Decimal | None = None
    currency: str | None = None


def decide(category: Category, lookups: Lookups, ticket: str, signals: Signals) -> Decision:
    """Decides a claim. Expects that both lookups were answered, with a result or an error."""
    order, policy = lookups.order, lookups.policy
    if lookups.order_error == "order_not_found":
        return Decision(Action.ANSWER, "order_not_found")
    if order is None or policy is None:
        return Decision(Action.ESCALATE, "lookup_failed")
    refusal = refusal_of(category, order, policy)
    if refusal is not None:
        return Decision(Action.DECLINE, refusal, order.order_id)
    if category in _NEEDS_DELIVERY and order.status == "processing":
        return Decision(Action.ESCALATE, "conflicting_story", order.order_id)
    worth = claim_worth(category, order, policy, ticket, signals)
    if worth is None:
        return Decision(Action.ESCALATE, "items_unclear", order.order_id)
    return Decision(Action.REFUND, category.value, order.order_id, worth, order.currency)


def refusal_of(category: Category, order: Order, policy: Policy) -> str | None:
    """Why nothing can go back, or None: already refunded, not overcharged, already sent, too late."""
    if order.refundable <= 0:
        return "already_refunded"
    if category is Category.DOUBLE_CHARGE and order.charged <= order.total:
        return "not_overcharged"
    if category is Category.CANCELLATION and order.status in ("shipped", "delivered"):
        return "already_shipped"
    return "out_of_window" if days_counted(order, policy) > policy.window_days else None


def days_counted(order: Order, policy: Policy) -> int:
    """Days since what the policy counts from; an order not yet delivered has used up none of a delivery's."""
    if policy.counted_from == "delivery":
        return order.delivered_days_ago or 0
    return order.placed_days_ago
