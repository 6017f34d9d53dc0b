"""The rules that a drafted refund must pass to continue without a person.

They rely on the internal systems alone, never on what a model claims. They run after the refund system holds the money,
on what it reported in the same transaction. So of two tickets of one order or customer that are worked on at the same
time, the second sees the first.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from app.config.policy import Rules
from app.domain.decision_texts import BOOKS_REFUSE
from app.domain.models import Action, Category, Draft, Refund, minor_units
from app.domain.orders import Account, Exposure, Order, RefundPolicy

# The refund system's codes for which the guards have a code of their own.
_CODE_OF_REFUSAL = {
    "order_not_found": "order_unknown",
    "currency_mismatch": "currency_differs",
    "exceeds_refundable": "above_refundable",
}
# Codes that refuse this refund and not the ticket: another refund may be accepted.
OF_THE_REFUND = frozenset({*_CODE_OF_REFUSAL.values(), "refund_missing"})
# The order's status that a category implies, and the code of the objection when the order has another one.
_STATUSES = {
    Category.DAMAGED: ({"delivered"}, "not_delivered"),
    Category.WRONG_ITEM: ({"delivered"}, "not_delivered"),
    Category.CHANGED_MIND: ({"delivered"}, "not_delivered"),
    Category.NOT_RECEIVED: ({"shipped", "delivered"}, "not_sent"),
    Category.CANCELLATION: ({"processing"}, "out_of_window"),
}


def objection(
    draft: Draft,
    category: Category,
    account: Account,
    exposure: Exposure | None,
    policy: RefundPolicy | None,
    rules: Rules,
) -> str | None:
    """The short code of why a person must decide about the draft; None if it may continue without one."""
    if draft.action is Action.ESCALATE:
        return "model_unsure"
    if draft.action is not Action.REFUND:
        return None
    if category is Category.FRAUD:
        return "fraud_reported"
    if exposure is None or exposure.order.order_id != draft.order_id:
        return "order_unknown"
    if policy is None or policy.category is not category:
        return "no_policy"
    return _against_books(draft, exposure.order, policy) or _against_rules(draft, account, exposure, rules)


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
    if (status := against_status(order, policy.category)) is not None:
        return status
    if not in_window(order, policy):
        return "out_of_window"
    return None


def _against_rules(draft: Draft, account: Account, exposure: Exposure, rules: Rules) -> str | None:
    if (draft.amount or Decimal(0)) + exposure.refunded_90d > rules.limit(draft.currency or ""):
        return "above_limit"
    if draft.confidence < rules.approval.min_confidence:
        return "low_confidence"
    if account.risk != "low":
        return "account_at_risk"
    if exposure.refunds_90d >= rules.approval.serial_refunds:
        return "many_refunds"
    return None


def allowed(order: Order, policy: RefundPolicy) -> Decimal:
    """The most that the policy still allows to refund for the order, less what is refunded or held already. After a
    double charge the policy allows what was charged above the order's total."""
    if policy.category is Category.DOUBLE_CHARGE:
        share = order.charged - order.total
    else:
        share = order.charged * policy.refund_percent / 100
    left = max(share - order.refunded - order.held, Decimal(0))
    return left.quantize(Decimal(1).scaleb(-minor_units(order.currency)), rounding=ROUND_DOWN)


def against_status(order: Order, category: Category) -> str | None:
    """The code of why the order's status contradicts the ticket's category, such as damage before delivery; None if it
    does not."""
    statuses, code = _STATUSES.get(category, ({order.status}, ""))
    return None if order.status in statuses else code


def in_window(order: Order, policy: RefundPolicy) -> bool:
    """Whether the order is within the policy's window. A window that counts from delivery is open until delivery."""
    if policy.counted_from == "order":
        return order.placed_days_ago <= policy.window_days
    return order.delivered_days_ago is None or order.delivered_days_ago <= policy.window_days


def proposal(draft: Draft | None, order: Order | None) -> Refund | None:
    """The refund that a person is shown for approval: the draft's, capped at what is refundable. None when the draft
    has no refund, or one of another order or currency."""
    if draft is None or draft.action is not Action.REFUND or order is None or order.order_id != draft.order_id:
        return None
    amount = min(draft.amount or Decimal(0), order.refundable)
    if amount <= 0 or draft.currency != order.currency:
        return None
    return Refund(order_id=order.order_id, amount=amount, currency=order.currency)


def reason_of(code: str) -> str:
    """The reason that a person is shown, as a short code, when the refund system refuses to hold or commit a refund.
    `code` is the refund system's. A person cannot overrule it."""
    return _CODE_OF_REFUSAL.get(code, BOOKS_REFUSE + code)
