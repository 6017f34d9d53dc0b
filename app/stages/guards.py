"""The rules that a refund must pass, from our own books alone: no model's word moves money. Pure."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from app.books import Account, Order, RefundPolicy
from app.models import Action, Category, Draft, Refund
from app.policy import Rules

_CENT = Decimal("0.01")


def objection(
    draft: Draft,
    category: Category,
    account: Account,
    order: Order | None,
    policy: RefundPolicy | None,
    rules: Rules,
) -> str | None:
    """Why a person must decide about the draft, as a short code; None when it may go on by itself."""
    if draft.action is Action.ESCALATE:
        return "model_unsure"
    if draft.action is not Action.REFUND:
        return None
    if category is Category.FRAUD:
        return "fraud_reported"
    if order is None or order.order_id != draft.order_id:
        return "order_unknown"
    if policy is None or policy.category is not category:
        return "no_policy"
    return _against_books(draft, order, policy) or _against_rules(draft, account, rules)


def _against_books(draft: Draft, order: Order, policy: RefundPolicy) -> str | None:
    amount = draft.amount or Decimal(0)
    if draft.currency != order.currency:
        return "currency_differs"
    if amount <= 0:
        return "no_amount"
    if amount > order.refundable:
        return "above_refundable"
    if amount > allowed(order, policy):
        return "above_policy"
    if not in_window(order, policy):
        return "out_of_window"
    return None


def _against_rules(draft: Draft, account: Account, rules: Rules) -> str | None:
    if (draft.amount or Decimal(0)) > rules.limit(draft.currency or ""):
        return "above_limit"
    if draft.confidence < rules.approval.min_confidence:
        return "low_confidence"
    if account.risk != "low":
        return "account_at_risk"
    if account.refunds_90d >= rules.approval.serial_refunds:
        return "many_refunds"
    return None


def allowed(order: Order, policy: RefundPolicy) -> Decimal:
    """The most that the policy lets go back for the order; after a double charge, what was charged too much."""
    if policy.category is Category.DOUBLE_CHARGE:
        return max(order.charged - order.total, Decimal(0))
    share = order.charged * policy.refund_percent / 100
    return share.quantize(_CENT, rounding=ROUND_DOWN)


def in_window(order: Order, policy: RefundPolicy) -> bool:
    """Whether the policy still covers the order; before delivery, days since delivery have not begun."""
    if policy.category is Category.CANCELLATION and order.status != "processing":
        return False
    if policy.counted_from == "order":
        return order.placed_days_ago <= policy.window_days
    return order.delivered_days_ago is None or order.delivered_days_ago <= policy.window_days


def proposed(draft: Draft | None, order: Order | None) -> Refund | None:
    """What a person is shown for approval: the draft's refund, never above what the books allow."""
    if draft is None or draft.action is not Action.REFUND or order is None or order.order_id != draft.order_id:
        return None
    amount = min(draft.amount or Decimal(0), order.refundable)
    if amount <= 0 or draft.currency != order.currency:
        return None
    return Refund(order_id=order.order_id, amount=amount, currency=order.currency)


def refusal(refund: Refund, order: Order | None) -> str | None:
    """Why even a person's refund cannot be posted; a person may overrule the policy but not the books."""
    if order is None:
        return "order_unknown"
    if refund.currency != order.currency:
        return "currency_differs"
    if not 0 < refund.amount <= order.refundable:
        return "above_refundable"
    return None
